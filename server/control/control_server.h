// The control socket, and SIGHUP: a thread of its own that carries out what is asked of the server
// while it serves, so that nobody who serves waits for it.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "io/error.h"
#include "io/log.h"
#include "io/unique_fd.h"
#include "server/listen_sockets.h"

namespace underlay {

class ControlServer {
 public:
  // Both run on the thread of the control server.
  struct Handlers {
    std::function<std::string(std::string_view line)> answer;  // to a command; without the line end
    std::function<void()> reload;                              // SIGHUP came
  };
  // Serves `socket`, if there is one, to one client at a time, until it is destroyed. To be called
  // once the process may start threads. `log` outlives it.
  static Result<std::unique_ptr<ControlServer>> start(std::optional<ListenSocket> socket,
                                                      Handlers handlers, Log& log);
  // Lets what is being carried out end; ends the process when a file does not let it.
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // Any thread; does not block.
  void ask_reload();

 private:
  ControlServer(std::optional<ListenSocket> socket, Handlers handlers, Log& log)
      : socket_(std::move(socket)), handlers_(std::move(handlers)), log_(log) {}
  void serve();
  void accept_client();
  void serve_client(int client);
  Result<std::string> read_line(int client);
  void send_line(int client, std::string line);
  bool wait_for(int client, short events, std::chrono::steady_clock::time_point until);

  std::optional<ListenSocket> socket_;
  const Handlers handlers_;
  Log& log_;
  UniqueFd reload_;  // eventfds: readable when asked
  UniqueFd stop_;
  std::promise<void> ended_;
  std::thread thread_;
};

}  // namespace underlay
