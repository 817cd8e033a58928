// The sockets that clients connect to.
#pragma once

#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "io/error.h"
#include "io/unique_fd.h"
#include "server/options.h"

namespace underlay {

// The file of a Unix socket, removed when this is destroyed.
class SocketFile {
 public:
  SocketFile() = default;  // none
  explicit SocketFile(std::string path) : path_(std::move(path)) {}
  SocketFile(SocketFile&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  SocketFile& operator=(SocketFile&& other) noexcept {
    std::swap(path_, other.path_);
    return *this;
  }
  ~SocketFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  const std::string& path() const { return path_; }  // "" for none

 private:
  std::string path_;
};

struct ListenSocket {
  UniqueFd fd;          // listening, close-on-exec
  bool tcp = false;     // then accepted sockets want TCP_NODELAY
  std::string address;  // for messages: the path, or "[address]:port"
  SocketFile file;      // none when it is not ours to remove
};

// What systemd handed over (LISTEN_PID, LISTEN_FDS: sd_listen_fds(3)); empty when nothing. The
// variables are removed from the environment. Fails when a descriptor is no listening stream
// socket, or when `address_given`: two answers to the question where to listen.
Result<std::vector<ListenSocket>> inherited_sockets(bool address_given);

// Opens the socket that the options ask for. A socket file that nobody listens on is replaced; one
// that somebody does listen on, or a file of another kind, is refused. For TCP, every address that
// -b resolves to (IPv4 and IPv6).
Result<std::vector<ListenSocket>> open_listen_sockets(const Options& options);

}  // namespace underlay
