#include "server/service_manager.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

namespace underlay {
namespace {

constexpr const char* kSocket = "NOTIFY_SOCKET";
constexpr const char* kWatchdogTime = "WATCHDOG_USEC";
constexpr const char* kWatchdogProcess = "WATCHDOG_PID";

// The manager reads all the time; one that hangs must not hang the server's start.
constexpr timeval kSendLimit{.tv_sec = 5, .tv_usec = 0};

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

template <class Number>
Number number(const std::string& text, Number otherwise) {
  Number value{};
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
  return whole ? value : otherwise;
}

// A watchdog that is meant for another process is none of ours.
std::chrono::microseconds watchdog_of_environment() {
  const std::string process = variable(kWatchdogProcess);
  if (!process.empty() && number<pid_t>(process, 0) != ::getpid()) return {};
  return std::chrono::microseconds(number<int64_t>(variable(kWatchdogTime), 0));
}

Result<UniqueFd> connect_to(const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const bool known = name.starts_with('/') || name.starts_with('@');
  if (!known || name.size() < 2 || name.size() >= sizeof(address.sun_path)) {
    return fail(ErrorKind::kUsage,
                "{}: \"{}\" is neither the path of a Unix socket nor an abstract name", kSocket,
                printable(name, 200));
  }
  std::memcpy(address.sun_path, name.data(), name.size());
  if (name.starts_with('@')) address.sun_path[0] = '\0';
  // The zero behind a path belongs to it; behind an abstract name it would be part of that.
  const size_t length = offsetof(sockaddr_un, sun_path) + name.size() + (name[0] == '/' ? 1 : 0);
  UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return fail_errno(errno, "cannot make a socket");
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &kSendLimit, sizeof(kSendLimit));
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (::connect(socket.get(), generic, static_cast<socklen_t>(length)) != 0) {
    return fail_errno(errno, "{}: cannot reach the service manager at \"{}\"", kSocket,
                      printable(name, 200));
  }
  return socket;
}

}  // namespace

Result<ServiceManager> ServiceManager::from_environment() {
  ServiceManager manager;
  const std::string name = variable(kSocket);
  const std::chrono::microseconds watchdog = watchdog_of_environment();
  for (const char* used : {kSocket, kWatchdogTime, kWatchdogProcess}) ::unsetenv(used);
  if (name.empty()) return manager;
  manager.socket_ = TRY(connect_to(name));
  manager.watchdog_ = watchdog;
  return manager;
}

void ServiceManager::ready() { say("READY=1", Wait::kYes); }

void ServiceManager::reloading() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  say(fmt::format("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1'000'000 + now.tv_nsec / 1'000),
      Wait::kNo);
}

void ServiceManager::stopping() { say("STOPPING=1", Wait::kNo); }

void ServiceManager::alive() { say("WATCHDOG=1", Wait::kNo); }

void ServiceManager::main_process_is(pid_t pid) { say(fmt::format("MAINPID={}", pid), Wait::kYes); }

void ServiceManager::let_go() {
  const std::lock_guard lock(mutex_);
  socket_.reset();
}

void ServiceManager::say(std::string_view message, Wait wait) {
  const std::lock_guard lock(mutex_);
  if (!socket_.valid()) return;
  // What cannot be told is lost: the manager acts on silence, and the clients are served anyway.
  const int flags = MSG_NOSIGNAL | (wait == Wait::kNo ? MSG_DONTWAIT : 0);
  (void)::send(socket_.get(), message.data(), message.size(), flags);
}

void mark_if_root_may_depend_on_us(char** argv) {
  // The file that tells an initial RAM disk from a root file system.
  if (argv[0] == nullptr || argv[0][0] == '\0') return;
  if (::access("/etc/initrd-release", F_OK) == 0) argv[0][0] = '@';
}

}  // namespace underlay
