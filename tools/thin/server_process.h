// The underlay-nbd process of an image. It outlives the program that started it; who runs is told
// by the kernel, through the lock that a server holds on its pid file while it lives.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "io/error.h"
#include "io/unique_fd.h"
#include "tools/thin/host.h"
#include "tools/thin/registry.h"

namespace underlay::thin {

// run_dir/ID/: nbd.sock, handover.sock, server.pid, server.log. The folder belongs to the user that
// the server runs as, 0700. All paths are absolute.
struct ServerFiles {
  std::string folder, socket, handover, pid_file, log;
};
enum class StartMode : uint8_t {
  kAlone,     // no server runs
  kTakeOver,  // gets sockets and clients of the running one, which ends then
  kBeside,    // next to the running one, on files of its own ("next-") until promote_server()
};
ServerFiles server_files(const Host& host, const std::string& image_id,
                         StartMode mode = StartMode::kAlone);

// The command line of the server, for steps in words and for exec.
std::vector<std::string> server_command(const Host& host, const ImageRecord& image, StartMode mode);

// Held while an image's server or connections are changed, so that commands and `watch` do not work
// against each other. Released with the descriptor. Waits at most a minute. Not recursive.
Result<UniqueFd> lock_server(const Host& host, const std::string& image_id);
// Takes the lock's file away with the last of an image. REQUIRES: lock_server() is held.
void remove_server_lock(const Host& host, const std::string& image_id);

// Starts the server, as kServiceUser when that exists, in a session (and under systemd in a scope)
// of its own, and waits until it listens, at most 30 seconds. When it ends instead, its last line
// of log is the error, and nothing runs. kAlone with a server that runs: its pid.
// REQUIRES: lock_server() is held. The process is a child: one that does not exit soon reaps it.
Result<pid_t> start_server(const Host& host, const ImageRecord& image, StartMode mode);
// Gives a server that was started with kBeside the usual names of files. REQUIRES: lock_server() is
// held, and the server that had them has ended.
Result<void> promote_server(const Host& host, const std::string& image_id);

// The running server's pid, checked to be one (not a process that got its number later).
Result<std::optional<pid_t>> running_server(const Host& host, const std::string& image_id);

struct RunningServer {
  pid_t pid = 0;
  UniqueFd pidfd;  // readable when the process has ended
};
Result<std::optional<RunningServer>> open_server(const Host& host, const std::string& image_id,
                                                 StartMode mode = StartMode::kAlone);

// How long a server may take to end by itself.
inline constexpr std::chrono::seconds kStopLimit{5};

// SIGTERM, then SIGKILL after `limit`; returns when the process has ended. Its files stay.
Result<void> end_server(const RunningServer& server, std::chrono::milliseconds limit = kStopLimit);
// The same for the server of an image (and one that was started beside it), and all its files are
// gone afterwards. No server: only clears what it left. REQUIRES: lock_server() is held.
Result<void> stop_server(const Host& host, const std::string& image_id,
                         std::chrono::milliseconds limit = kStopLimit);
// Ends a server of `mode` that nobody needs, or clears the sockets and the pid file that it left.
// REQUIRES: lock_server() is held.
Result<void> clear_server(const Host& host, const std::string& image_id, StartMode mode);

}  // namespace underlay::thin
