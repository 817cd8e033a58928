// The cage: what is left to a server that has opened all it needs. Whoever gets hold of it by a
// hostile image or client finds that it can answer clients, read the files that are open, and,
// with --directory, open more of that folder, and, with --cache-dir, write to that one; it runs no
// programs, opens no connections (but those to the ports of the servers that images lie on),
// changes no other file, sees no other process, and is no other user.
//
//   capabilities   all dropped but those that reading needs
//   no_new_privs   no program could bring them back
//   Landlock       files, by folder; connections; signals (Linux 5.13, 6.7, 6.12)
//   seccomp        system calls, by an allow-list: all others fail with EPERM
//
// io_uring, which seccomp does not see into, has restrictions of its own (io/ring.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/error.h"

namespace underlay {

struct CagePlan {
  std::vector<std::string> folders;  // whose files may still be opened for reading
  std::vector<std::string> written;  // folders whose files may be made, written and removed
  // To read from servers: files and folders of the system, and the TCP ports of these servers.
  std::vector<std::string> system_files;
  std::vector<uint16_t> ports;
  std::vector<std::string> removed;  // files that the server removes when it ends
  bool kernel_device = false;        // -c: it takes the device down again when it ends

  bool connects() const { return !ports.empty(); }
};

// What the kernel could not do of it, for -v.
struct CageReport {
  std::vector<std::string> missing;
};

// Enters the cage, for good. Threads that exist already stay outside: call it before any is
// started. Fails when the kernel refuses what it claims to have.
Result<CageReport> enter_cage(const CagePlan& plan);

// Whether a build can be caged: the sanitizers' own system calls would not be allowed.
bool is_cage_possible();

}  // namespace underlay
