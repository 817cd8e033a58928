#include "server/listen_sockets.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace underlay {
namespace {

constexpr int kFirstInheritedFd = 3;  // SD_LISTEN_FDS_START

// A number in the environment; nullopt when it is not there or is no number.
std::optional<int> number_in_environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  int number = 0;
  const char* end = text + std::strlen(text);
  const auto parsed = std::from_chars(text, end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return number;
}

std::string socket_label(const sockaddr* address, socklen_t length) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  const int failed = ::getnameinfo(address, length, host, sizeof(host), port, sizeof(port),
                                   NI_NUMERICHOST | NI_NUMERICSERV);
  if (failed != 0) return "unknown address";
  return fmt::format("[{}]:{}", host, port);
}

template <class T>
bool get_option(int fd, int option, T& value) {
  socklen_t length = sizeof(value);
  return ::getsockopt(fd, SOL_SOCKET, option, &value, &length) == 0;
}

// A descriptor that systemd handed over, checked.
Result<ListenSocket> adopt(int fd) {
  int type = 0;
  int listening = 0;
  if (!get_option(fd, SO_TYPE, type) || !get_option(fd, SO_ACCEPTCONN, listening) ||
      type != SOCK_STREAM || listening == 0) {
    return fail(ErrorKind::kUsage,
                "descriptor {} from LISTEN_FDS is no listening stream socket (ListenStream=)", fd);
  }
  const int flags = ::fcntl(fd, F_GETFD);
  if (flags < 0 || ::fcntl(fd, F_SETFD, flags | FD_CLOEXEC) != 0) {
    return fail_errno(errno, "cannot set close-on-exec on descriptor {} from LISTEN_FDS", fd);
  }
  ListenSocket socket;
  socket.fd.reset(fd);
  sockaddr_storage address{};
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof(address);
  if (::getsockname(fd, generic, &length) != 0) {
    return fail_errno(errno, "cannot tell the address of descriptor {} from LISTEN_FDS", fd);
  }
  socket.tcp = address.ss_family == AF_INET || address.ss_family == AF_INET6;
  socket.address = socket.tcp ? socket_label(generic, length) : fmt::format("descriptor {}", fd);
  return socket;
}

// ---- Unix ----

// What a Unix socket is for.
struct UnixSocketKind {
  int type = SOCK_STREAM;
  std::string_view option = "-k";   // for messages
  std::optional<mode_t> mode = {};  // of its file; none: what the umask leaves
  bool take_over = false;           // whoever listens there
};

// Does anybody listen on the socket file? REQUIRES: `address` is of a path that is a socket.
Result<bool> is_listened_on(const sockaddr_un& address, const std::string& path) {
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.valid()) return fail_errno(errno, "cannot make a socket");
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (::connect(probe.get(), generic, sizeof(address)) == 0) return true;
  if (errno == EAGAIN) return true;      // its queue is full: somebody is only slow
  if (errno == EPROTOTYPE) return true;  // a socket of another type lives there
  if (errno == ECONNREFUSED || errno == ENOENT) return false;
  return in_file(fail_errno(errno, "cannot tell whether somebody listens on this socket"), path);
}

Result<void> remove_stale_socket(const sockaddr_un& address, const std::string& path,
                                 const UnixSocketKind& kind) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return {};  // bind() will say what is wrong
  if (!S_ISSOCK(status.st_mode)) {
    return in_file(
        fail(ErrorKind::kUsage, "exists and is no socket: choose another path for {}", kind.option),
        path);
  }
  if (!kind.take_over && TRY(is_listened_on(address, path))) {
    return in_file(fail_errno(EADDRINUSE, "another program listens on this socket"), path);
  }
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
  return in_file(fail_errno(errno, "cannot remove the socket that nobody listens on"), path);
}

Result<ListenSocket> listen_unix(const std::string& path, const UnixSocketKind& kind) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  constexpr size_t kMaxPathBytes = sizeof(address.sun_path) - 1;
  if (path.size() > kMaxPathBytes) {
    return fail(ErrorKind::kUsage, "{}: the socket path has {} bytes, and the limit is {}: \"{}\"",
                kind.option, path.size(), kMaxPathBytes, printable(path, 200));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  TRY(remove_stale_socket(address, path, kind));

  ListenSocket socket;
  socket.fd.reset(::socket(AF_UNIX, kind.type | SOCK_CLOEXEC, 0));
  if (!socket.fd.valid()) return fail_errno(errno, "cannot make a socket");
  // The file takes the mode from the socket: nobody else can connect, not even for a moment.
  if (kind.mode && ::fchmod(socket.fd.get(), *kind.mode) != 0) {
    return fail_errno(errno, "cannot set the mode of a socket");
  }
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (::bind(socket.fd.get(), generic, sizeof(address)) != 0) {
    return in_file(fail_errno(errno, "cannot create the socket"), path);
  }
  socket.file = SocketFile(path);
  if (::listen(socket.fd.get(), SOMAXCONN) != 0) {
    return in_file(fail_errno(errno, "cannot listen on the socket"), path);
  }
  socket.address = path;
  return socket;
}

// ---- TCP ----

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Result<AddressList> resolve(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const char* name = host.empty() ? nullptr : host.c_str();
  const int failed = ::getaddrinfo(name, port.c_str(), &hints, &found);
  if (failed != 0) {
    const std::string reason = failed == EAI_SYSTEM ? strerror(errno) : ::gai_strerror(failed);
    return fail(ErrorKind::kIo, "cannot resolve -b \"{}\", -p \"{}\": {}", printable(host, 200),
                printable(port, 80), reason);
  }
  return AddressList(found, &::freeaddrinfo);
}

bool set_on(int fd, int level, int option) {
  const int on = 1;
  return ::setsockopt(fd, level, option, &on, sizeof(on)) == 0;
}

enum class PortUse : uint8_t {
  kAlone,
  kShared,  // others of this user may listen there as well, if they do so in the same way
};

// `only_ipv6`: leave the port's IPv4 side to another socket.
Result<ListenSocket> listen_tcp(const addrinfo& address, bool only_ipv6, PortUse use) {
  ListenSocket socket;
  socket.tcp = true;
  socket.address = socket_label(address.ai_addr, address.ai_addrlen);
  socket.fd.reset(::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int fd = socket.fd.get();
  const int only = only_ipv6 ? 1 : 0;
  const bool listening = fd >= 0 && set_on(fd, SOL_SOCKET, SO_REUSEADDR) &&
                         (use == PortUse::kAlone || set_on(fd, SOL_SOCKET, SO_REUSEPORT)) &&
                         (address.ai_family != AF_INET6 ||
                          ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only)) == 0) &&
                         ::bind(fd, address.ai_addr, address.ai_addrlen) == 0 &&
                         ::listen(fd, SOMAXCONN) == 0;
  if (!listening) return fail_errno(errno, "cannot listen on {}", socket.address);
  return socket;
}

// A machine without IPv6 still resolves names to its addresses.
bool is_missing_family(const Error& error) {
  return error.sys_errno == EAFNOSUPPORT || error.sys_errno == EADDRNOTAVAIL;
}

Result<std::vector<ListenSocket>> listen_tcp_all(const std::string& host, const std::string& port,
                                                 PortUse use = PortUse::kAlone) {
  const AddressList list = TRY(resolve(host, port));
  bool has_ipv4 = false;
  for (const addrinfo* at = list.get(); at != nullptr; at = at->ai_next) {
    has_ipv4 = has_ipv4 || at->ai_family == AF_INET;
  }
  std::vector<ListenSocket> sockets;
  std::optional<Error> skipped;
  for (const addrinfo* at = list.get(); at != nullptr; at = at->ai_next) {
    const std::string label = socket_label(at->ai_addr, at->ai_addrlen);
    const bool repeated =
        std::any_of(sockets.begin(), sockets.end(),
                    [&](const ListenSocket& other) { return other.address == label; });
    if (repeated) continue;
    auto socket = listen_tcp(*at, has_ipv4, use);
    if (socket) {
      sockets.push_back(*std::move(socket));
    } else if (is_missing_family(socket.error())) {
      skipped = std::move(socket).error();
    } else {
      return Failure(std::move(socket).error());
    }
  }
  if (sockets.empty() && skipped) return Failure(*std::move(skipped));
  return sockets;
}

}  // namespace

SocketFile::SocketFile(std::string path) : path_(std::move(path)) {
  struct stat status {};
  if (::lstat(path_.c_str(), &status) == 0) identity_ = {status.st_dev, status.st_ino};
}

SocketFile::~SocketFile() {
  if (path_.empty()) return;
  struct stat now {};
  if (::lstat(path_.c_str(), &now) != 0) return;
  if (FileIdentity{now.st_dev, now.st_ino} == identity_) ::unlink(path_.c_str());
}

Result<std::vector<ListenSocket>> inherited_sockets(bool address_given) {
  const std::optional<int> pid = number_in_environment("LISTEN_PID");
  const std::optional<int> count = number_in_environment("LISTEN_FDS");
  std::vector<ListenSocket> sockets;
  if (!pid || *pid != ::getpid() || !count) return sockets;  // meant for another process
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(name);
  if (address_given) {
    return fail(
        ErrorKind::kUsage,
        "systemd handed sockets over (LISTEN_FDS): -k, -b, -p and --take-over cannot be given "
        "as well");
  }
  for (int i = 0; i < *count; ++i) sockets.push_back(TRY(adopt(kFirstInheritedFd + i)));
  return sockets;
}

Result<std::vector<ListenSocket>> open_listen_sockets(const Options& options) {
  if (options.socket_path.empty()) return listen_tcp_all(options.bind_address, options.port);
  std::vector<ListenSocket> sockets;
  sockets.push_back(TRY(listen_unix(options.socket_path, {})));
  return sockets;
}

Result<std::vector<ListenSocket>> open_service_sockets(std::string_view option,
                                                       const std::string& address, bool take_over) {
  if (!address.starts_with('/')) {
    const size_t colon = address.rfind(':');
    if (colon == std::string::npos) {
      return fail(ErrorKind::kUsage, "{}: \"{}\" is neither an absolute path nor HOST:PORT", option,
                  printable(address, 200));
    }
    // getaddrinfo() takes any number for a port.
    const std::string port = address.substr(colon + 1);
    const bool number = port.find_first_not_of("0123456789") == std::string::npos;
    if (port.empty() || (number && (port.size() > 5 || std::stoul(port) > 65535))) {
      return fail(ErrorKind::kUsage, "{}: \"{}\" is no port from 1 to 65535", option,
                  printable(port, 80));
    }
    std::string host = address.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    // Shared with a successor to come, but not with a stranger.
    if (!take_over) TRY(listen_tcp_all(host, port));
    return listen_tcp_all(host, port, PortUse::kShared);
  }
  std::vector<ListenSocket> sockets;
  sockets.push_back(TRY(listen_unix(address, {.option = option, .take_over = take_over})));
  return sockets;
}

Result<ListenSocket> open_handover_socket(const std::string& path) {
  return listen_unix(path, {.type = SOCK_SEQPACKET, .option = "--handover", .mode = 0600});
}

Result<ListenSocket> open_control_socket(const std::string& path, bool take_over) {
  return listen_unix(path, {.option = "--control", .mode = 0600, .take_over = take_over});
}

}  // namespace underlay
