// The underlay-nbd process of an image.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>

#include "io/error.h"
#include "tools/thin/host.h"
#include "tools/thin/registry.h"

namespace underlay::thin {

// run_dir/ID/: nbd.sock, handover.sock, server.pid, server.log. The folder belongs to the user that
// the server runs as, 0700.
struct ServerFiles {
  std::string folder, socket, handover, pid_file, log;
};
ServerFiles server_files(const Host& host, const std::string& image_id);

// The command line of the server, for steps in words and for exec.
std::vector<std::string> server_command(const Host& host, const ImageRecord& image, bool take_over);

// Starts the server and waits until it listens. When it ends instead, its last line of log is the
// error. The process outlives this one.
Result<pid_t> start_server(const Host& host, const ImageRecord& image, bool take_over);
// The running server's pid, checked to be one (not a process that got its number later).
Result<std::optional<pid_t>> running_server(const Host& host, const std::string& image_id);
// SIGTERM, then SIGKILL after `limit`. Its files are gone afterwards. No server: nothing to do.
Result<void> stop_server(const Host& host, const std::string& image_id,
                         std::chrono::milliseconds limit);

}  // namespace underlay::thin
