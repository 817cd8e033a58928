// What a service manager (systemd) is told of the server, and what it asks for: datagrams to the
// socket that $NOTIFY_SOCKET names, as sd_notify(3) specifies them. Without such a socket, nothing
// of this has an effect.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <mutex>
#include <string_view>

#include "io/error.h"
#include "io/unique_fd.h"

namespace underlay {

// Thread-safe, but for the construction.
class ServiceManager {
 public:
  // Nobody to tell.
  ServiceManager() = default;
  // Connects to the socket of the environment, a path or an abstract name ("@..."), so that the
  // rest works in the cage as well, and takes the variables out of the environment. Fails when
  // there is a name to which nothing can be sent.
  static Result<ServiceManager> from_environment();

  ServiceManager(ServiceManager&& other) noexcept
      : socket_(std::move(other.socket_)), watchdog_(other.watchdog_) {}

  bool is_there() const { return socket_.valid(); }
  // How long it may hear nothing before it takes the server for dead; 0 = it does not mind.
  std::chrono::microseconds watchdog() const { return watchdog_; }

  // Clients can connect, or can again after reloading().
  void ready();
  // The configuration is being read again; ready() ends that.
  void reloading();
  void stopping();
  // The watchdog hears that all is well.
  void alive();
  // This process has taken the place of the one that the manager watches.
  void main_process_is(pid_t pid);
  // Another process speaks for the service from now on: this one is silent.
  void let_go();

 private:
  enum class Wait : uint8_t { kNo, kYes };
  void say(std::string_view message, Wait wait);

  std::mutex mutex_;
  UniqueFd socket_;  // under mutex_, once there are threads
  std::chrono::microseconds watchdog_{};
};

// A process that was started before the root file system was there, which may lie on what it
// serves, is not to be ended before that is unmounted. systemd leaves those of root alone whose
// command line begins with '@' (https://systemd.io/ROOT_STORAGE_DAEMONS). Call it with main()'s.
void mark_if_root_may_depend_on_us(char** argv);

}  // namespace underlay
