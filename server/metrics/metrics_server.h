// Answers GET /metrics by HTTP, with GNU libmicrohttpd, on threads of its own.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "io/error.h"
#include "server/listen_sockets.h"

struct MHD_Daemon;

namespace underlay {

class MetricsServer {
 public:
  // Loads the library: to be called before the sandbox closes.
  static Result<void> load();

  // Serves on `sockets` until it is destroyed. `text` makes the answer, on any thread. To be called
  // once the process may start threads. REQUIRES: load() has succeeded.
  static Result<std::unique_ptr<MetricsServer>> start(std::vector<ListenSocket> sockets,
                                                      std::function<std::string()> text);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

 private:
  explicit MetricsServer(std::function<std::string()> text) : text_(std::move(text)) {}
  Result<void> add(const ListenSocket& socket);

  const std::function<std::string()> text_;
  std::vector<ListenSocket> sockets_;  // the library closes none of them
  std::vector<MHD_Daemon*> daemons_;
};

}  // namespace underlay
