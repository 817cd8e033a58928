#include "tools/thin/server_process.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <thread>

#include "tools/thin/pidfd.h"

namespace underlay::thin {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::chrono::seconds kLockLimit{60};
constexpr milliseconds kLockRetry{10};
constexpr std::chrono::seconds kKillLimit{5};

std::string absolute(const std::string& path) {
  std::error_code error;
  auto result = std::filesystem::absolute(path, error);
  return error ? path : result.lexically_normal().string();
}

// A name without a slash is looked up in PATH; the server's working folder is not ours.
std::string program_path(const std::string& program) {
  return program.find('/') == std::string::npos ? program : absolute(program);
}

// The image with its backing format, which has no option of its own.
std::string image_opts(const ImageRecord& image) {
  std::string filename;
  for (const char c : image.location) {
    filename += c;
    if (c == ',') filename += c;
  }
  return fmt::format("driver={},backing.driver={},file.filename={}", image.format,
                     image.backing_format, filename);
}

// Who holds the lock on the pid file: the server that runs, as long as it lives.
Result<std::optional<pid_t>> lock_holder(const std::string& pid_file) {
  const UniqueFd fd(::open(pid_file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.valid() && (errno == ENOENT || errno == ENOTDIR)) return std::nullopt;
  if (!fd.valid()) return in_file(fail_errno(errno, "cannot open the server's pid file"), pid_file);
  struct flock lock {};
  lock.l_type = F_WRLCK;
  if (::fcntl(fd.get(), F_GETLK, &lock) != 0) {
    return in_file(fail_errno(errno, "cannot ask for the lock of the server's pid file"), pid_file);
  }
  if (lock.l_type == F_UNLCK) return std::nullopt;
  if (lock.l_pid <= 0) {
    return in_file(fail(ErrorKind::kUsage,
                        "is locked by a process outside of this pid namespace: run underlay-thin "
                        "where its servers run"),
                   pid_file);
  }
  return lock.l_pid;
}

Result<void> remove_files(const ServerFiles& files) {
  for (const std::string& path : {files.socket, files.handover, files.pid_file}) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT && errno != ENOTDIR) {
      return in_file(fail_errno(errno, "cannot remove what a server left"), path);
    }
  }
  return {};
}

std::string lock_path(const Host& host, const std::string& image_id) {
  return absolute(host.image_dir(image_id)) + ".lock";
}

// Is the open file still the one that the path names? remove_server_lock() may have been there.
bool still_names(const std::string& path, int fd) {
  struct stat by_path {};
  struct stat by_fd {};
  return ::stat(path.c_str(), &by_path) == 0 && ::fstat(fd, &by_fd) == 0 &&
         by_path.st_dev == by_fd.st_dev && by_path.st_ino == by_fd.st_ino;
}

}  // namespace

ServerFiles server_files(const Host& host, const std::string& image_id, StartMode mode) {
  const char* prefix = mode == StartMode::kBeside ? "next-" : "";
  ServerFiles files;
  files.folder = absolute(host.image_dir(image_id));
  files.socket = fmt::format("{}/{}nbd.sock", files.folder, prefix);
  files.handover = fmt::format("{}/{}handover.sock", files.folder, prefix);
  files.pid_file = fmt::format("{}/{}server.pid", files.folder, prefix);
  files.log = files.folder + "/server.log";
  return files;
}

std::vector<std::string> server_command(const Host& host, const ImageRecord& image,
                                        StartMode mode) {
  const ServerFiles files = server_files(host, image.id, mode);
  std::vector<std::string> command{program_path(host.server), "-t", "-e", "0"};
  command.insert(command.end(), {"--handover", files.handover, "--pid-file", files.pid_file});
  if (mode == StartMode::kTakeOver) {
    command.insert(command.end(), {"--take-over", files.handover});
  } else {
    command.insert(command.end(), {"-k", files.socket});
  }
  if (image.has_objects() && !host.cache_dir.empty()) {
    command.insert(command.end(), {"--cache-dir", host.cache_dir});
    if (!host.cache_size.empty()) command.insert(command.end(), {"--cache-size", host.cache_size});
  }
  for (const std::string& folder : image.allow_paths) {
    command.insert(command.end(), {"--allow-path", folder});
  }
  for (const std::string& parent : image.parents) {
    command.insert(command.end(), {"--parent", parent});
  }
  if (image.backing_format.empty()) {
    command.insert(command.end(), {"-f", image.format, image.location});
  } else {
    command.insert(command.end(), {"--image-opts", image_opts(image)});
  }
  return command;
}

Result<UniqueFd> lock_server(const Host& host, const std::string& image_id) {
  const std::string path = lock_path(host, image_id);
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  const auto deadline = Clock::now() + kLockLimit;
  while (true) {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd.valid()) return in_file(fail_errno(errno, "cannot create the server's lock"), path);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) {
      if (still_names(path, fd.get())) return fd;
      continue;
    }
    if (errno != EWOULDBLOCK && errno != EINTR) {
      return in_file(fail_errno(errno, "cannot lock"), path);
    }
    if (interrupted()) return fail(ErrorKind::kUsage, "interrupted");
    if (Clock::now() >= deadline) {
      return in_file(fail(ErrorKind::kUsage,
                          "another underlay-thin has been at work on this image's server for {} s: "
                          "see who with 'fuser'",
                          kLockLimit.count()),
                     path);
    }
    std::this_thread::sleep_for(kLockRetry);
  }
}

void remove_server_lock(const Host& host, const std::string& image_id) {
  ::unlink(lock_path(host, image_id).c_str());
}

Result<std::optional<RunningServer>> open_server(const Host& host, const std::string& image_id,
                                                 StartMode mode) {
  const std::string pid_file = server_files(host, image_id, mode).pid_file;
  while (true) {
    const std::optional<pid_t> pid = TRY(lock_holder(pid_file));
    if (!pid) return std::nullopt;
    UniqueFd pidfd(::pidfd_open(*pid, 0));
    if (!pidfd.valid() && errno != ESRCH) {
      return fail_errno(errno, "cannot watch the server, process {}", *pid);
    }
    // It still holds the lock: so the descriptor is not of a process that got its number later.
    if (pidfd.valid() && TRY(lock_holder(pid_file)) == pid) {
      return RunningServer{.pid = *pid, .pidfd = std::move(pidfd)};
    }
  }
}

Result<std::optional<pid_t>> running_server(const Host& host, const std::string& image_id) {
  const auto server = TRY(open_server(host, image_id));
  if (!server) return std::nullopt;
  return server->pid;
}

Result<void> promote_server(const Host& host, const std::string& image_id) {
  const ServerFiles from = server_files(host, image_id, StartMode::kBeside);
  const ServerFiles to = server_files(host, image_id);
  // The pid file last: with it the server is found, and has all its files by then.
  const std::array<std::pair<std::string, std::string>, 3> names{
      {{from.socket, to.socket}, {from.handover, to.handover}, {from.pid_file, to.pid_file}}};
  for (const auto& [old_name, new_name] : names) {
    if (::rename(old_name.c_str(), new_name.c_str()) != 0 && errno != ENOENT) {
      return in_file(fail_errno(errno, "cannot rename a server's file to {}", new_name), old_name);
    }
  }
  return {};
}

Result<void> end_server(const RunningServer& server, milliseconds limit) {
  for (const auto& [signal, wait] :
       {std::pair{SIGTERM, limit}, {SIGKILL, milliseconds(kKillLimit)}}) {
    if (::pidfd_send_signal(server.pidfd.get(), signal, nullptr, 0) != 0 && errno != ESRCH) {
      return fail_errno(errno, "cannot end the server, process {}", server.pid);
    }
    if (has_ended(server.pidfd.get(), wait)) return {};
  }
  return fail(ErrorKind::kIo,
              "the server, process {}, does not end after SIGKILL: its storage may hang",
              server.pid);
}

Result<void> clear_server(const Host& host, const std::string& image_id, StartMode mode) {
  if (const auto server = TRY(open_server(host, image_id, mode))) {
    TRY(end_server(*server));
  }
  return remove_files(server_files(host, image_id, mode));
}

Result<void> stop_server(const Host& host, const std::string& image_id, milliseconds limit) {
  TRY(clear_server(host, image_id, StartMode::kBeside));
  if (const auto server = TRY(open_server(host, image_id))) TRY(end_server(*server, limit));
  const ServerFiles files = server_files(host, image_id);
  TRY(remove_files(files));
  ::unlink(files.log.c_str());
  if (::rmdir(files.folder.c_str()) != 0 && errno != ENOENT && errno != ENOTEMPTY) {
    return in_file(fail_errno(errno, "cannot remove the server's folder"), files.folder);
  }
  remove_server_lock(host, image_id);
  return {};
}

}  // namespace underlay::thin
