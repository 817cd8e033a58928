#include "server/cage_test.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/io_uring.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "io/unique_fd.h"

namespace underlay {
namespace {

namespace fs = std::filesystem;

// What an attempt left: 0 when it was possible, else its errno.
int outcome(long result) { return result < 0 ? errno : 0; }

int open_to_read(const char* path) { return outcome(::open(path, O_RDONLY | O_CLOEXEC)); }

int open_by_openat2(const char* path, uint64_t flags) {
  open_how how{};
  how.flags = flags;
  how.mode = (flags & O_CREAT) != 0 ? 0600 : 0;
  return outcome(::syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how)));
}

int run_program() {
  std::array<char*, 1> none{nullptr};
  return outcome(::execve("/bin/true", none.data(), none.data()));
}

int start_process() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  return outcome(child);
}

int make_socket_pair() {
  std::array<int, 2> ends{};
  return outcome(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()));
}

int map_code() {
  void* const code =
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return code == MAP_FAILED ? errno : 0;
}

int make_ring() {
  io_uring_params params{};
  return outcome(::syscall(SYS_io_uring_setup, 1, &params));
}

// Files of the test's own, outside the plan: were the cage open, nothing else would be harmed.
struct Scene {
  std::string folder;
  std::string file;   // in it
  std::string fresh;  // a name in it that is free
};

struct Attempt {
  const char* what;
  int (*make)(const Scene& scene);
  bool by_clients = false;  // what who reads from servers may do
};

constexpr std::array kForbidden = {
    Attempt{"read a file", [](const Scene& scene) { return open_to_read(scene.file.c_str()); }},
    Attempt{"read a file by openat2",
            [](const Scene& scene) { return open_by_openat2(scene.file.c_str(), O_RDONLY); }},
    Attempt{"write to a file",
            [](const Scene& scene) { return open_by_openat2(scene.file.c_str(), O_WRONLY); }},
    Attempt{"create a file",
            [](const Scene& scene) {
              return open_by_openat2(scene.fresh.c_str(), O_CREAT | O_WRONLY);
            }},
    Attempt{"make a folder",
            [](const Scene& scene) { return outcome(::mkdir(scene.fresh.c_str(), 0700)); }},
    Attempt{"rename a file",
            [](const Scene& scene) {
              return outcome(::rename(scene.file.c_str(), scene.fresh.c_str()));
            }},
    Attempt{"remove a file",
            [](const Scene& scene) { return outcome(::unlink(scene.file.c_str())); }},
    Attempt{"change a file's mode",
            [](const Scene& scene) { return outcome(::chmod(scene.file.c_str(), 0644)); }},
    Attempt{"truncate a file",
            [](const Scene& scene) { return outcome(::truncate(scene.file.c_str(), 0)); }},
    Attempt{"run a program", [](const Scene&) { return run_program(); }},
    Attempt{"start a process", [](const Scene&) { return start_process(); }},
    Attempt{"make a TCP socket",
            [](const Scene&) { return outcome(::socket(AF_INET, SOCK_STREAM, 0)); }, true},
    Attempt{"make a Unix socket",
            [](const Scene&) { return outcome(::socket(AF_UNIX, SOCK_STREAM, 0)); }},
    Attempt{"make a netlink socket",
            [](const Scene&) { return outcome(::socket(AF_NETLINK, SOCK_RAW, 0)); }},
    Attempt{"make a pair of sockets", [](const Scene&) { return make_socket_pair(); }, true},
    Attempt{"send a signal to its parent",
            [](const Scene&) { return outcome(::kill(::getppid(), 0)); }},
    Attempt{"trace a process",
            [](const Scene&) { return outcome(::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr)); }},
    Attempt{"become root", [](const Scene&) { return outcome(::setresuid(0, 0, 0)); }},
    Attempt{"mount a file system",
            [](const Scene& scene) {
              return outcome(::mount("none", scene.folder.c_str(), "tmpfs", 0, nullptr));
            }},
    Attempt{"leave its namespaces", [](const Scene&) { return outcome(::unshare(CLONE_NEWNS)); }},
    Attempt{"map memory to run code from", [](const Scene&) { return map_code(); }},
    Attempt{"make another io_uring", [](const Scene&) { return make_ring(); }},
    Attempt{"load a BPF program",
            [](const Scene&) { return outcome(::syscall(SYS_bpf, 0, nullptr, 0)); }},
    Attempt{"reach the kernel's keys",
            [](const Scene&) { return outcome(::syscall(SYS_keyctl, 0, 0, 0, 0, 0)); }},
};

// A refusal by the cage, and not for want of a file, say.
bool is_refusal(int error) { return error == EPERM || error == EACCES; }

// What serving needs must go on: a file that is open, a thread, a folder of the plan.
Result<void> check_what_is_needed(int opened, const CagePlan& plan, std::ostream& out) {
  char byte = 0;
  if (::pread(opened, &byte, 1, 0) != 1) return fail_errno(errno, "cannot read an open file");
  out << "ok    may read a file that is open\n";
  bool ran = false;
  std::thread([&] { ran = true; }).join();
  if (!ran) return fail(ErrorKind::kIo, "cannot start a thread");
  out << "ok    may start a thread\n";
  if (plan.connects()) {
    const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket.valid()) return fail_errno(errno, "cannot make a TCP socket");
    out << "ok    may connect to servers that images lie on\n";
  }
  for (const std::string& folder : plan.folders) {
    const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return in_file(fail_errno(errno, "cannot open the folder"), folder);
    ::close(fd);
    out << fmt::format("ok    may read files in {}\n", printable(folder));
  }
  return {};
}

Result<void> try_all(CagePlan plan, const Scene& scene, std::ostream& out) {
  // As many rights as a server ever has: it removes a file in the end.
  if (plan.removed.empty()) plan.removed.push_back(scene.folder + "/removable/socket");
  const UniqueFd opened(::open(scene.file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!opened.valid()) return in_file(fail_errno(errno, "cannot open"), scene.file);
  const CageReport report = TRY(enter_cage(plan));
  for (const std::string& missing : report.missing) {
    out << fmt::format("note  this kernel has no {}\n", missing);
  }
  size_t possible = 0;
  for (const Attempt& attempt : kForbidden) {
    if (attempt.by_clients && plan.connects()) continue;
    const int error = attempt.make(scene);
    if (is_refusal(error)) {
      out << fmt::format("ok    cannot {}: {}\n", attempt.what, std::strerror(error));
    } else {
      ++possible;
      out << fmt::format("FAIL  could {}{}{}\n", attempt.what,
                         error == 0 ? "" : ", but for: ", error == 0 ? "" : std::strerror(error));
    }
  }
  TRY(check_what_is_needed(opened.get(), plan, out));
  if (possible == 0) return {};
  return fail(ErrorKind::kDenied, "{} forbidden things are possible in the sandbox", possible);
}

// In the child, which never leaves the cage.
[[noreturn]] void try_all_and_exit(const CagePlan& plan, const Scene& scene, std::ostream& out) {
  const auto result = try_all(plan, scene, out);
  if (!result) out << fmt::format("FAIL  {}\n", result.error().to_string());
  out.flush();
  ::_exit(result && out ? 0 : 1);
}

Result<Scene> make_scene() {
  std::error_code error;
  const fs::path temporary = fs::temp_directory_path(error);
  if (error) return fail_errno(error.value(), "cannot find a folder for temporary files (TMPDIR)");
  std::string folder = (temporary / "underlay-sandbox-test-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return fail_errno(errno, "cannot make a folder");
  Scene scene{.folder = folder, .file = folder + "/file", .fresh = folder + "/fresh"};
  fs::create_directory(folder + "/removable", error);
  const UniqueFd file(::open(scene.file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  if (error || !file.valid() || ::write(file.get(), "x", 1) != 1) {
    return in_file(fail_errno(errno, "cannot make a file for the test"), scene.file);
  }
  return scene;
}

}  // namespace

Result<void> test_cage(const CagePlan& plan, std::ostream& out) {
  const Scene scene = TRY(make_scene());
  out.flush();
  const pid_t child = ::fork();
  if (child == 0) try_all_and_exit(plan, scene, out);
  int status = 0;
  const bool ended = child > 0 && ::waitpid(child, &status, 0) == child;
  std::error_code ignored;
  fs::remove_all(scene.folder, ignored);
  if (!ended) return fail_errno(errno, "cannot run the test in a process of its own");
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return fail(ErrorKind::kDenied, "the sandbox does not hold: see the lines with FAIL");
}

}  // namespace underlay
