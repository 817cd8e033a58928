// Starting, finding and ending servers, with a small program in the server's place: it takes the
// same options, locks its pid file and listens as the server does.
#include "tools/thin/server_process.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "tests/support/temp_folder.h"

namespace underlay::thin {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

// Its image says what it does: "crash", "silent", "stubborn" (ignores SIGTERM), else it serves.
constexpr const char* kServer = R"(#!/usr/bin/python3
import fcntl, os, signal, socket, sys
option = dict(zip(sys.argv[1:-1], sys.argv[2:]))
image = sys.argv[-1]
if image == "/crash":
    sys.exit("first line\nunderlay-nbd: /crash: not a qcow2 image")
if image == "/silent":
    os.kill(os.getpid(), signal.SIGSEGV)
if image == "/stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.socket(socket.AF_UNIX)
listener.bind(option["-k"])
listener.listen()
pid_file = open(option["--pid-file"], "a")
print("cwd", os.getcwd(), "session", os.getsid(0) == os.getpid(),
      "blocked", len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
      "fds", len(os.listdir("/proc/self/fd")), flush=True)
fcntl.lockf(pid_file, fcntl.LOCK_EX)
while True:
    signal.pause()
)";

// Ends what a test started.
class Lab {
 public:
  Lab() {
    host_.run_dir = folder_.path("run");
    host_.server = folder_.write("server", kServer);
    fs::permissions(host_.server, fs::perms::owner_all);
    image_.id = "0123abcd";
    image_.format = "qcow2";
    image_.location = "/image";
  }
  ~Lab() {
    for (const pid_t pid : started_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
  }
  Result<pid_t> start(StartMode mode = StartMode::kAlone) {
    auto pid = start_server(host_, image_, mode);
    if (pid) started_.insert(*pid);
    return pid;
  }
  void kill(pid_t pid) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    started_.erase(pid);
  }
  std::optional<pid_t> running() const {
    const auto pid = running_server(host_, image_.id);
    REQUIRE(pid);
    return *pid;
  }
  ServerFiles files() const { return server_files(host_, image_.id); }
  std::string log() const {
    std::ostringstream text;
    text << std::ifstream(files().log).rdbuf();
    return text.str();
  }

  Host host_;
  ImageRecord image_;

 private:
  TempFolder folder_;
  std::set<pid_t> started_;
};

TEST_CASE("a server that was started listens, is found, and its folder is private") {
  Lab lab;
  CHECK(!lab.running());
  const auto pid = lab.start();
  REQUIRE(pid);
  CHECK(lab.running() == *pid);
  CHECK(fs::is_socket(lab.files().socket));
  CHECK(fs::status(lab.files().folder).permissions() == fs::perms::owner_all);
  CHECK(fs::status(lab.files().log).permissions() ==
        (fs::perms::owner_read | fs::perms::owner_write));
}

TEST_CASE("a server has a session of its own, no blocked signal, and only the standard files") {
  Lab lab;
  sigset_t blocked;
  sigset_t before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
  const auto pid = lab.start();
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  REQUIRE(pid);
  // Its own: three standard files, socket, pid file, and the folder that it lists.
  CHECK(lab.log() == "cwd / session True blocked 0 fds 6\n");
}

TEST_CASE("a second start finds the server that runs") {
  Lab lab;
  const auto pid = lab.start();
  REQUIRE(pid);
  CHECK(lab.start() == *pid);
}

TEST_CASE("a server that ends at start is an error with its last line of log") {
  Lab lab;
  lab.image_.location = "/crash";
  const auto pid = lab.start();
  REQUIRE(!pid);
  CHECK(pid.error().to_string() == "the server did not start: /crash: not a qcow2 image");
  CHECK(!lab.running());
}

TEST_CASE("a server that dies at start without a word is an error that names the signal") {
  Lab lab;
  lab.image_.location = "/crash";
  REQUIRE(!lab.start());
  lab.image_.location = "/silent";  // the log holds a line of the start before
  const auto pid = lab.start();
  REQUIRE(!pid);
  CHECK(pid.error().to_string() == "the server was killed by signal 11 at start without a word");
}

TEST_CASE("a server program that is not there is an error that names it") {
  Lab lab;
  lab.host_.server = "/nowhere/underlay-nbd";
  const auto pid = lab.start();
  REQUIRE(!pid);
  CHECK(pid.error().to_string() ==
        "cannot run '/nowhere/underlay-nbd' (name the server with --server): No such file or "
        "directory");
}

TEST_CASE("what a killed server left is no server, and does not stop the next one") {
  Lab lab;
  const auto first = lab.start();
  REQUIRE(first);
  lab.kill(*first);
  CHECK(fs::exists(lab.files().pid_file));
  CHECK(!lab.running());
  const auto second = lab.start();
  REQUIRE(second);
  CHECK(*second != *first);
}

TEST_CASE("a pid file with the number of another process is no server") {
  Lab lab;
  fs::create_directories(lab.files().folder);
  std::ofstream(lab.files().pid_file) << ::getpid() << '\n';
  CHECK(!lab.running());
}

TEST_CASE("a link in the place of the log is not followed") {
  Lab lab;
  fs::create_directories(lab.files().folder);
  const std::string victim = lab.host_.run_dir + "/victim";
  std::ofstream(victim) << "untouched";
  fs::create_symlink(victim, lab.files().log);
  CHECK(!lab.start());
  fs::remove(lab.files().log);
  fs::create_hard_link(victim, lab.files().log);
  const auto pid = lab.start();
  REQUIRE(!pid);
  CHECK(pid.error().kind == ErrorKind::kDenied);
  CHECK(fs::file_size(victim) == 9);
}

TEST_CASE("stopping a server ends it and leaves no file") {
  Lab lab;
  const auto lock = lock_server(lab.host_, lab.image_.id);
  REQUIRE(lock);
  REQUIRE(lab.start());
  REQUIRE(stop_server(lab.host_, lab.image_.id, seconds(5)));
  CHECK(!lab.running());
  CHECK(fs::is_empty(lab.host_.run_dir));
  CHECK(stop_server(lab.host_, lab.image_.id, seconds(5)));  // nothing to do
}

TEST_CASE("a server that ignores SIGTERM is killed") {
  Lab lab;
  lab.image_.location = "/stubborn";
  REQUIRE(lab.start());
  const auto before = std::chrono::steady_clock::now();
  REQUIRE(stop_server(lab.host_, lab.image_.id, milliseconds(100)));
  CHECK(std::chrono::steady_clock::now() - before >= milliseconds(100));
  CHECK(!lab.running());
}

TEST_CASE("a server that was started beside another takes its names when that has ended") {
  Lab lab;
  const auto first = lab.start();
  REQUIRE(first);
  const auto second = lab.start(StartMode::kBeside);
  REQUIRE(second);
  CHECK(lab.running() == *first);
  const auto old_server = open_server(lab.host_, lab.image_.id);
  REQUIRE(old_server);
  REQUIRE(*old_server);
  REQUIRE(end_server(**old_server, seconds(5)));
  REQUIRE(promote_server(lab.host_, lab.image_.id));
  CHECK(lab.running() == *second);
  CHECK(fs::is_socket(lab.files().socket));
  CHECK(!fs::exists(server_files(lab.host_, lab.image_.id, StartMode::kBeside).pid_file));
}

TEST_CASE("a server that was started beside another and forgotten ends with the next start") {
  Lab lab;
  const auto first = lab.start();
  const auto forgotten = lab.start(StartMode::kBeside);
  REQUIRE(forgotten);
  const auto next = lab.start(StartMode::kBeside);
  REQUIRE(next);
  CHECK(::waitpid(*forgotten, nullptr, WNOHANG) == *forgotten);
  CHECK(lab.running() == *first);
}

TEST_CASE("an image's lock is for one at a time, and comes free with its file removed") {
  Lab lab;
  auto held = lock_server(lab.host_, lab.image_.id);
  REQUIRE(held);
  bool removed = false;
  std::thread other([&] {
    const auto lock = lock_server(lab.host_, lab.image_.id);
    CHECK(lock);
    CHECK(removed);
    CHECK(fs::exists(lab.host_.image_dir(lab.image_.id) + ".lock"));
  });
  std::this_thread::sleep_for(milliseconds(50));
  removed = stop_server(lab.host_, lab.image_.id, seconds(1)).has_value();
  held->reset();
  other.join();
}

TEST_CASE("the command names the image's format, folders and files") {
  Lab lab;
  lab.image_.allow_paths = {"/base"};
  lab.image_.parents = {"child=/parent"};
  const ServerFiles files = lab.files();
  const std::vector<std::string> expected{lab.host_.server,
                                          "-t",
                                          "-e",
                                          "0",
                                          "--handover",
                                          files.handover,
                                          "--pid-file",
                                          files.pid_file,
                                          "--take-over",
                                          files.handover,
                                          "--allow-path",
                                          "/base",
                                          "--parent",
                                          "child=/parent",
                                          "-f",
                                          "qcow2",
                                          "/image"};
  CHECK(server_command(lab.host_, lab.image_, StartMode::kTakeOver) == expected);
}

TEST_CASE("the command passes a backing format on, and a comma in the image's name") {
  Lab lab;
  lab.image_.location = "/a,b";
  lab.image_.backing_format = "raw";
  const auto command = server_command(lab.host_, lab.image_, StartMode::kAlone);
  CHECK(command[command.size() - 2] == "--image-opts");
  CHECK(command.back() == "driver=qcow2,backing.driver=raw,file.filename=/a,,b");
}

}  // namespace
}  // namespace underlay::thin
