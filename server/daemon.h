// --fork and --pid-file.
#pragma once

#include <sys/types.h>

#include <string>

#include "io/error.h"
#include "io/source.h"
#include "io/unique_fd.h"

namespace underlay {

// --fork: the parent waits until its child serves, or has failed, and exits with the child's
// answer.
class Daemon {
 public:
  // Forks; returns in the child only. The parent stays until ready() was called in the child (then
  // exits with 0) or the child ended (then exits with the child's status). Call it before any
  // thread or ring exists.
  static Result<Daemon> fork_into_background();

  // Tells the parent to exit, and lets go of the terminal: standard input, output and (unless
  // `keep_stderr`) error go to /dev/null. A parent that has gone is no failure.
  void ready(bool keep_stderr);

 private:
  Daemon(UniqueFd notify, UniqueFd null) : notify_(std::move(notify)), null_(std::move(null)) {}
  UniqueFd notify_;
  UniqueFd null_;  // /dev/null
};

// Holds the pid file, locked, while the server runs; removes it at the end. Fails when another
// process holds it.
class PidFile {
 public:
  static Result<PidFile> create(const std::string& path);
  // For a process that will take the place of `predecessor`, which may hold the file: nothing is
  // written before take().
  static Result<PidFile> prepare(const std::string& path, pid_t predecessor);
  // Locks the file and writes the process ID into it. REQUIRES: prepare()d.
  Result<void> take();
  // Leaves the file, unlocked, to the successor.
  void let_go() { fd_.reset(); }
  FileIdentity identity() const;

  PidFile(PidFile&&) = default;
  PidFile& operator=(PidFile&&) = delete;
  ~PidFile();

 private:
  PidFile(UniqueFd fd, std::string path, bool locked)
      : fd_(std::move(fd)), path_(std::move(path)), locked_(locked) {}
  UniqueFd fd_;
  std::string path_;
  bool locked_;
};

}  // namespace underlay
