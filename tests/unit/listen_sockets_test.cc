// Listening sockets, the pid file and --fork, on real files and loopback ports.
#include "server/listen_sockets.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "server/daemon.h"

namespace underlay {
namespace {

namespace fs = std::filesystem;

class TempFolder {
 public:
  TempFolder() {
    char name[] = "/tmp/underlay-sockets-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~TempFolder() { fs::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

Options on_socket(const std::string& path) {
  Options options;
  options.socket_path = path;
  return options;
}

Options on_port(const std::string& address, uint16_t port) {
  Options options;
  options.bind_address = address;
  options.port = std::to_string(port);
  return options;
}

bool connects_to(int family, const void* address, socklen_t length) {
  // Over AF_UNIX, a full queue would block. Over TCP, a loopback listener answers at once.
  const int flags = family == AF_UNIX ? SOCK_NONBLOCK : 0;
  const UniqueFd fd(::socket(family, SOCK_STREAM | flags, 0));
  return ::connect(fd.get(), static_cast<const sockaddr*>(address), length) == 0;
}

sockaddr_un unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size());
  return address;
}

bool connects(const std::string& path) {
  const sockaddr_un address = unix_address(path);
  return connects_to(AF_UNIX, &address, sizeof(address));
}

sockaddr_in ipv4_loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

bool connects_ipv4(uint16_t port) {
  const sockaddr_in address = ipv4_loopback(port);
  return connects_to(AF_INET, &address, sizeof(address));
}

bool connects_ipv6(uint16_t port) {
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(port);
  address.sin6_addr = in6addr_loopback;
  return connects_to(AF_INET6, &address, sizeof(address));
}

// A port that was free a moment ago.
uint16_t free_port() {
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address = ipv4_loopback(0);
  socklen_t length = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  REQUIRE(::bind(fd.get(), generic, length) == 0);
  REQUIRE(::getsockname(fd.get(), generic, &length) == 0);
  return ntohs(address.sin_port);
}

std::string refusal(const Options& options) {
  const auto sockets = open_listen_sockets(options);
  REQUIRE_FALSE(sockets);
  const std::string line = sockets.error().to_string();
  CHECK(line.find('\n') == std::string::npos);
  return line;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string content(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Runs `body` in a child; its exit status, or 128 + the signal that killed it.
template <class Body>
int status_of_child(Body body) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(body());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

TEST_CASE("listen: a unix socket takes clients, with the rights that the umask leaves") {
  const TempFolder folder;
  const std::string path = folder / "s";
  const mode_t before = ::umask(022);
  const auto sockets = open_listen_sockets(on_socket(path));
  ::umask(before);
  REQUIRE(sockets);
  REQUIRE(sockets->size() == 1);
  CHECK_FALSE(sockets->front().tcp);
  CHECK(sockets->front().address == path);
  CHECK(sockets->front().file.path() == path);
  CHECK(connects(path));
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0755);
}

TEST_CASE("listen: a socket file is gone with its socket") {
  const TempFolder folder;
  const std::string path = folder / "s";
  { REQUIRE(open_listen_sockets(on_socket(path))); }
  CHECK(!fs::exists(path));
}

TEST_CASE("listen: a socket file that another server has replaced is left to it") {
  const TempFolder folder;
  const std::string path = folder / "s";
  auto first = open_listen_sockets(on_socket(path));
  REQUIRE(first);
  fs::remove(path);
  const auto second = open_listen_sockets(on_socket(path));
  REQUIRE(second);
  first->clear();
  CHECK(connects(path));
}

TEST_CASE("listen: a socket for successors is for its owner alone, and others keep their own") {
  const TempFolder folder;
  const std::string path = folder / "s";
  const mode_t before = ::umask(0);
  const auto socket = open_handover_socket(path);
  ::umask(before);
  REQUIRE(socket);
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0600);
  CHECK(contains(refusal(on_socket(path)), "another program listens on this socket"));
  CHECK_FALSE(open_handover_socket(path));
}

TEST_CASE("listen: a socket file that nobody listens on is replaced") {
  const TempFolder folder;
  const std::string path = folder / "s";
  const sockaddr_un address = unix_address(path);
  {
    const UniqueFd killed(::socket(AF_UNIX, SOCK_STREAM, 0));
    REQUIRE(::bind(killed.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) ==
            0);
  }
  REQUIRE(fs::exists(path));
  const auto sockets = open_listen_sockets(on_socket(path));
  REQUIRE(sockets);
  CHECK(connects(path));
}

TEST_CASE("listen: a socket that somebody listens on is left alone, also when its queue is full") {
  const TempFolder folder;
  const std::string path = folder / "s";
  const UniqueFd other(::socket(AF_UNIX, SOCK_STREAM, 0));
  const sockaddr_un address = unix_address(path);
  REQUIRE(::bind(other.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  REQUIRE(::listen(other.get(), 0) == 0);
  CHECK(contains(refusal(on_socket(path)), "another program listens on this socket"));
  CHECK(contains(refusal(on_socket(path)), "Address already in use"));
  CHECK_FALSE(connects(path));  // because the probes above filled the queue
}

TEST_CASE("listen: a file of another kind at the socket's path is never removed") {
  const TempFolder folder;
  const std::string path = folder / "image";
  std::ofstream(path) << "precious";
  CHECK(contains(refusal(on_socket(path)), "exists and is no socket"));
  CHECK(content(path) == "precious");
  fs::create_symlink(folder / "nowhere", folder / "link");
  CHECK(contains(refusal(on_socket(folder / "link")), "exists and is no socket"));
}

TEST_CASE("listen: a path that cannot be a socket is refused in one line") {
  const TempFolder folder;
  CHECK(contains(refusal(on_socket(folder / "no/such")), "cannot create the socket: No such file"));
  const std::string line = refusal(on_socket("/" + std::string(107, 'x')));
  CHECK(contains(line, "has 108 bytes, and the limit is 107"));
}

TEST_CASE("listen: the longest path of a socket is bound in full") {
  const TempFolder folder;
  const std::string path = folder / "";
  const std::string longest = path + std::string(107 - path.size(), 'x');
  const auto sockets = open_listen_sockets(on_socket(longest));
  REQUIRE(sockets);
  CHECK(fs::exists(longest));
}

TEST_CASE("listen: the default address is IPv4 only") {
  const uint16_t port = free_port();
  const auto sockets = open_listen_sockets(on_port("0.0.0.0", port));
  REQUIRE(sockets);
  REQUIRE(sockets->size() == 1);
  CHECK(sockets->front().tcp);
  CHECK(sockets->front().file.path() == "");
  CHECK(sockets->front().address == fmt::format("[0.0.0.0]:{}", port));
  CHECK(connects_ipv4(port));
  CHECK_FALSE(connects_ipv6(port));
}

TEST_CASE("listen: no address is every address, IPv4 and IPv6") {
  const uint16_t port = free_port();
  const auto sockets = open_listen_sockets(on_port("", port));
  REQUIRE(sockets);
  CHECK(sockets->size() == 2);
  CHECK(connects_ipv4(port));
  CHECK(connects_ipv6(port));
}

TEST_CASE("listen: :: alone takes IPv4 clients as well, as with qemu-nbd") {
  const uint16_t port = free_port();
  const auto sockets = open_listen_sockets(on_port("::", port));
  REQUIRE(sockets);
  CHECK(sockets->size() == 1);
  CHECK(connects_ipv4(port));
  CHECK(connects_ipv6(port));
}

TEST_CASE("listen: a busy port is one line") {
  const uint16_t port = free_port();
  const auto first = open_listen_sockets(on_port("127.0.0.1", port));
  REQUIRE(first);
  CHECK(refusal(on_port("127.0.0.1", port)) ==
        fmt::format("cannot listen on [127.0.0.1]:{}: Address already in use", port));
  CHECK(contains(refusal(on_port("", port)), "Address already in use"));
}

TEST_CASE("listen: an address that is not ours, or no address, is refused") {
  CHECK(contains(refusal(on_port("192.0.2.1", 10809)), "Cannot assign requested address"));
  CHECK(contains(refusal(on_port("no such host", 10809)), "cannot resolve -b \"no such host\""));
  Options options = on_port("127.0.0.1", 1);
  options.port = "nosuchservice";
  CHECK(contains(refusal(options), "-p \"nosuchservice\""));
}

TEST_CASE("listen: descriptors are close-on-exec") {
  const TempFolder folder;
  for (const Options& options : {on_socket(folder / "s"), on_port("127.0.0.1", free_port())}) {
    const auto sockets = open_listen_sockets(options);
    REQUIRE(sockets);
    CHECK((::fcntl(sockets->front().fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
  }
}

// Each in a child, where descriptor 3 may be anything.
TEST_CASE("listen: sockets of systemd are taken over, once") {
  const uint16_t port = free_port();
  const auto listening = open_listen_sockets(on_port("127.0.0.1", port));
  REQUIRE(listening);
  const int status = status_of_child([&] {
    if (::dup2(listening->front().fd.get(), 3) != 3) return 10;
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    ::setenv("LISTEN_FDS", "1", 1);
    const auto sockets = inherited_sockets(false);
    if (!sockets || sockets->size() != 1 || !sockets->front().tcp) return 11;
    if (sockets->front().address != fmt::format("[127.0.0.1]:{}", port)) return 12;
    if ((::fcntl(3, F_GETFD) & FD_CLOEXEC) == 0) return 13;
    if (std::getenv("LISTEN_PID") != nullptr || std::getenv("LISTEN_FDS") != nullptr) return 14;
    return 0;
  });
  CHECK(status == 0);
}

TEST_CASE("listen: sockets of systemd and an address exclude each other") {
  const int status = status_of_child([] {
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    ::setenv("LISTEN_FDS", "1", 1);
    const auto sockets = inherited_sockets(true);
    return !sockets && sockets.error().kind == ErrorKind::kUsage ? 0 : 1;
  });
  CHECK(status == 0);
}

TEST_CASE("listen: what systemd hands over must be listening stream sockets") {
  const int status = status_of_child([] {
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    ::setenv("LISTEN_FDS", "1", 1);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    if (::dup2(fd, 3) != 3) return 10;
    const auto sockets = inherited_sockets(false);
    return !sockets && contains(sockets.error().message, "no listening stream socket") ? 0 : 1;
  });
  CHECK(status == 0);
}

TEST_CASE("listen: sockets that are meant for another process are not touched") {
  for (const std::string pid : {"1", "", "x", "99999999999999999999"}) {
    const int status = status_of_child([&] {
      ::setenv("LISTEN_PID", pid.c_str(), 1);
      ::setenv("LISTEN_FDS", "1", 1);
      const auto sockets = inherited_sockets(true);
      return sockets && sockets->empty() && std::getenv("LISTEN_FDS") != nullptr ? 0 : 1;
    });
    CHECK(status == 0);
  }
}

TEST_CASE("pid file: holds the number while it lives, over what was there") {
  const TempFolder folder;
  const std::string path = folder / "pid";
  std::ofstream(path) << "12345678901234567890";
  {
    const auto file = PidFile::create(path);
    REQUIRE(file);
    CHECK(content(path) == fmt::format("{}\n", ::getpid()));
  }
  CHECK_FALSE(fs::exists(path));
}

TEST_CASE("pid file: one process holds it") {
  const TempFolder folder;
  const std::string path = folder / "pid";
  const auto file = PidFile::create(path);
  REQUIRE(file);
  const int status = status_of_child([&] {
    const auto second = PidFile::create(path);
    return !second && contains(second.error().to_string(), "another process runs") ? 0 : 1;
  });
  CHECK(status == 0);
  CHECK(content(path) == fmt::format("{}\n", ::getpid()));
}

TEST_CASE("pid file: a successor takes it once its holder lets go, and the holder leaves it") {
  const TempFolder folder;
  const std::string path = folder / "pid";
  auto file = PidFile::create(path);
  REQUIRE(file);
  const pid_t holder = ::getpid();
  std::array<int, 2> prepared{};
  REQUIRE(::pipe(prepared.data()) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    auto next = PidFile::prepare(path, holder);
    const bool same = next && next->identity() == file->identity();
    const bool untouched = content(path) == fmt::format("{}\n", holder);
    (void)!::write(prepared[1], "x", 1);
    const bool taken = next && next->take() && content(path) == fmt::format("{}\n", ::getpid());
    next->let_go();
    ::_exit(same && untouched && taken ? 0 : 1);
  }
  char byte = 0;
  REQUIRE(::read(prepared[0], &byte, 1) == 1);
  file->let_go();
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(content(path) == fmt::format("{}\n", child));
}

TEST_CASE("pid file: a successor that gives up leaves it to its holder") {
  const TempFolder folder;
  const std::string path = folder / "pid";
  const auto file = PidFile::create(path);
  REQUIRE(file);
  const pid_t holder = ::getpid();
  CHECK(status_of_child([&] { return PidFile::prepare(path, holder) ? 0 : 1; }) == 0);
  CHECK(status_of_child([&] { return PidFile::prepare(path, holder + 1) ? 1 : 0; }) == 0);
  CHECK(content(path) == fmt::format("{}\n", holder));
}

TEST_CASE("pid file: a file that took its place is not removed") {
  const TempFolder folder;
  const std::string path = folder / "pid";
  {
    const auto file = PidFile::create(path);
    REQUIRE(file);
    fs::remove(path);
    std::ofstream(path) << "other";
  }
  CHECK(content(path) == "other");
}

TEST_CASE("pid file: what cannot be one is refused") {
  const TempFolder folder;
  CHECK(contains(PidFile::create(folder / "no/pid").error().to_string(), "cannot create"));
  CHECK(contains(PidFile::create("/dev/null").error().to_string(), "no regular file"));
}

TEST_CASE("fork: the parent waits for ready, and then exits with 0") {
  const TempFolder folder;
  const std::string path = folder / "child";
  const int status = status_of_child([&] {
    auto daemon = Daemon::fork_into_background();
    if (!daemon) return 9;
    ::usleep(200000);
    std::ofstream(path) << (::getsid(0) == ::getpid() ? "leader" : "follower");
    daemon->ready(false);
    return 7;
  });
  CHECK(status == 0);
  CHECK(content(path) == "leader");
}

TEST_CASE("fork: the parent fails as its child failed") {
  const auto exits = [](int status) {
    return status_of_child([=] {
      auto daemon = Daemon::fork_into_background();
      return daemon ? status : 9;
    });
  };
  CHECK(exits(1) == 1);
  CHECK(exits(2) == 2);
  const int killed = status_of_child([] {
    auto daemon = Daemon::fork_into_background();
    ::close(STDERR_FILENO);
    if (daemon) ::raise(SIGKILL);
    return 9;
  });
  CHECK(killed == 1);
}

TEST_CASE("fork: a parent that was killed does not kill the server") {
  const TempFolder folder;
  const std::string path = folder / "child";
  const int status = status_of_child([&] {
    const pid_t parent = ::getpid();
    auto daemon = Daemon::fork_into_background();
    ::kill(parent, SIGKILL);
    while (::getppid() == parent) ::usleep(1000);
    daemon->ready(true);
    std::ofstream(path) << "alive";
    return 0;
  });
  CHECK(status == 128 + SIGKILL);
  for (int i = 0; i < 500 && content(path) != "alive"; ++i) ::usleep(10000);
  CHECK(content(path) == "alive");
}

}  // namespace underlay
