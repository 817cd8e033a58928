// What a service manager hears, and from which environment.
#include "server/service_manager.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

// The manager's end: a socket with an address.
class Listener {
 public:
  // As NOTIFY_SOCKET names it: a path, or "@" and a name.
  explicit Listener(const std::string& name) : socket_(::socket(AF_UNIX, SOCK_DGRAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name.front() == '@') address.sun_path[0] = '\0';
    const auto* generic = reinterpret_cast<const sockaddr*>(&address);
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    REQUIRE(::bind(socket_.get(), generic, length) == 0);
    ::setenv("NOTIFY_SOCKET", name.c_str(), 1);
  }

  // The next message; "" when there is none.
  std::string next() {
    std::array<char, 256> text{};
    const ssize_t got = ::recv(socket_.get(), text.data(), text.size(), MSG_DONTWAIT);
    return {text.data(), got > 0 ? static_cast<size_t>(got) : 0};
  }

 private:
  UniqueFd socket_;
};

void set_watchdog(const std::string& microseconds, const std::string& pid) {
  ::setenv("WATCHDOG_USEC", microseconds.c_str(), 1);
  ::setenv("WATCHDOG_PID", pid.c_str(), 1);
}

std::string abstract_name(const char* what) {
  return fmt::format("@underlay-{}-{}", what, ::getpid());
}

TEST_CASE("without NOTIFY_SOCKET there is nobody to tell") {
  ::unsetenv("NOTIFY_SOCKET");
  set_watchdog("4000000", std::to_string(::getpid()));
  auto manager = ServiceManager::from_environment();
  REQUIRE(manager);
  CHECK_FALSE(manager->is_there());
  CHECK(manager->watchdog().count() == 0);
  manager->ready();
  manager->alive();
}

TEST_CASE("each message is a datagram of its own, as sd_notify(3) has it") {
  Listener listener(abstract_name("messages"));
  auto manager = ServiceManager::from_environment();
  REQUIRE(manager);
  CHECK(manager->is_there());
  manager->ready();
  CHECK(listener.next() == "READY=1");
  manager->alive();
  CHECK(listener.next() == "WATCHDOG=1");
  manager->main_process_is(4711);
  CHECK(listener.next() == "MAINPID=4711");
  manager->reloading();
  CHECK(listener.next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
  manager->stopping();
  CHECK(listener.next() == "STOPPING=1");
  CHECK(listener.next().empty());
}

TEST_CASE("the socket may have a path") {
  const TempFolder folder;
  Listener listener(folder.path("notify"));
  auto manager = ServiceManager::from_environment();
  REQUIRE(manager);
  manager->ready();
  CHECK(listener.next() == "READY=1");
}

TEST_CASE("the environment is for this process alone, and gone afterwards") {
  Listener listener(abstract_name("environment"));
  set_watchdog("4000000", std::to_string(::getpid()));
  auto manager = ServiceManager::from_environment();
  REQUIRE(manager);
  CHECK(manager->watchdog() == std::chrono::seconds(4));
  for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) {
    CHECK(std::getenv(name) == nullptr);
  }
}

TEST_CASE("a watchdog of another process, or without a sensible time, is none") {
  for (const auto& [time, pid] : {std::pair<std::string, std::string>{"4000000", "1"},
                                  {"4000000", "nobody"},
                                  {"soon", std::to_string(::getpid())}}) {
    Listener listener(abstract_name("watchdog"));
    set_watchdog(time, pid);
    auto manager = ServiceManager::from_environment();
    REQUIRE(manager);
    CHECK(manager->watchdog().count() == 0);
  }
}

TEST_CASE("a manager that nobody reaches is told in one line") {
  for (const std::string name : {"/nowhere/notify", "relative", "@", "vsock:2:1234"}) {
    ::setenv("NOTIFY_SOCKET", name.c_str(), 1);
    const auto manager = ServiceManager::from_environment();
    REQUIRE_FALSE(manager);
    const std::string line = manager.error().to_string();
    CHECK(line.find("NOTIFY_SOCKET") != std::string::npos);
    CHECK(line.find(name) != std::string::npos);
  }
}

TEST_CASE("one that hears nothing any more stops nobody, and one let go hears no more") {
  Listener listener(abstract_name("deaf"));
  auto manager = ServiceManager::from_environment();
  REQUIRE(manager);
  // Its queue is full sooner or later.
  for (int i = 0; i < 10'000; ++i) manager->alive();
  while (!listener.next().empty()) {
  }
  manager->let_go();
  CHECK_FALSE(manager->is_there());
  manager->ready();
  CHECK(listener.next().empty());
}

}  // namespace
}  // namespace underlay
