// The sockets that clients connect to.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "io/error.h"
#include "io/source.h"
#include "io/unique_fd.h"
#include "server/options.h"

namespace underlay {

// The file of a Unix socket, removed when this is destroyed, unless another file has taken its
// place meanwhile. (The kernel keeps the inode as long as the socket lives, so that its number is
// not another file's.)
class SocketFile {
 public:
  SocketFile() = default;  // none
  // What stands at `path` now.
  explicit SocketFile(std::string path);
  // A file that another process has made.
  SocketFile(std::string path, FileIdentity identity)
      : path_(std::move(path)), identity_(identity) {}
  SocketFile(SocketFile&& other) noexcept
      : path_(std::exchange(other.path_, {})), identity_(other.identity_) {}
  SocketFile& operator=(SocketFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(identity_, other.identity_);
    return *this;
  }
  ~SocketFile();
  const std::string& path() const { return path_; }  // "" for none
  FileIdentity identity() const { return identity_; }
  // Leaves the file to somebody else.
  void let_go() { path_.clear(); }

 private:
  std::string path_;
  FileIdentity identity_;
};

struct ListenSocket {
  UniqueFd fd;          // listening, close-on-exec
  bool tcp = false;     // then accepted sockets want TCP_NODELAY
  std::string address;  // for messages: the path, or "[address]:port"
  SocketFile file;      // none when it is not ours to remove; removed before `fd` is closed
};

// What systemd handed over (LISTEN_PID, LISTEN_FDS: sd_listen_fds(3)); empty when nothing. The
// variables are removed from the environment. Fails when a descriptor is no listening stream
// socket, or when `address_given`: two answers to the question where to listen.
Result<std::vector<ListenSocket>> inherited_sockets(bool address_given);

// Opens the socket that the options ask for. A socket file that nobody listens on is replaced; one
// that somebody does listen on, or a file of another kind, is refused. For TCP, every address that
// -b resolves to (IPv4 and IPv6).
Result<std::vector<ListenSocket>> open_listen_sockets(const Options& options);

// Opens the sockets of an option that takes an absolute PATH or HOST:PORT ([HOST]:PORT for IPv6).
// `take_over`: from whoever listens there.
Result<std::vector<ListenSocket>> open_service_sockets(std::string_view option,
                                                       const std::string& address, bool take_over);

// Opens the socket (SOCK_SEQPACKET, only for the user who owns it) at which a server listens for
// its successor.
Result<ListenSocket> open_handover_socket(const std::string& path);

// Opens the control socket, only for the user who owns it. `take_over`: another server that listens
// there is about to end, and leaves a file alone that is not its own.
Result<ListenSocket> open_control_socket(const std::string& path, bool take_over);

}  // namespace underlay
