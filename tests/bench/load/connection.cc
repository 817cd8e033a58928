#include "tests/bench/load/connection.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "server/nbd_protocol.h"

namespace underlay::bench {
namespace {

Result<UniqueFd> connect_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return fail(ErrorKind::kUsage, "{}: a unix socket's path has at most {} bytes", path,
                sizeof(address.sun_path) - 1);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (!fd.valid() || ::connect(fd.get(), generic, sizeof(address)) != 0) {
    return fail_errno(errno, "cannot connect to {}", path);
  }
  return fd;
}

Result<UniqueFd> connect_tcp(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int code = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); code != 0) {
    return fail(ErrorKind::kNotFound, "{}:{}: {}", host, port, ::gai_strerror(code));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
  int failure = 0;
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    UniqueFd fd(::socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    if (fd.valid() && ::connect(fd.get(), address->ai_addr, address->ai_addrlen) == 0 &&
        ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0) {
      return fd;
    }
    failure = errno;
  }
  return fail_errno(failure, "cannot connect to {}:{}", host, port);
}

}  // namespace

Result<Connection> Connection::open(const Settings& settings) {
  UniqueFd fd = TRY(settings.socket.empty() ? connect_tcp(settings.host, settings.port)
                                            : connect_unix(settings.socket));
  const timeval patience{.tv_sec = kPatienceSeconds, .tv_usec = 0};
  for (const int direction : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    if (::setsockopt(fd.get(), SOL_SOCKET, direction, &patience, sizeof(patience)) != 0) {
      return fail_errno(errno, "cannot limit how long to wait for the server");
    }
  }
  Connection connection(std::move(fd));
  TRY(connection.enter(settings.export_name));
  return connection;
}

Result<void> Connection::send(ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      return fail_errno(errno, "cannot send to the server");
    }
    bytes = bytes.subspan(static_cast<size_t>(sent));
  }
  return {};
}

Result<size_t> Connection::receive(MutableByteSpan out) {
  for (;;) {
    const ssize_t got = ::recv(fd_.get(), out.data(), out.size(), 0);
    if (got > 0) return static_cast<size_t>(got);
    if (got == 0) return fail(ErrorKind::kTruncated, "the server has hung up");
    if (errno == EAGAIN) return fail(ErrorKind::kIo, "no reply within {} s", kPatienceSeconds);
    if (errno != EINTR) return fail_errno(errno, "cannot receive from the server");
  }
}

Result<void> Connection::receive_exactly(MutableByteSpan out) {
  while (!out.empty()) out = out.subspan(TRY(receive(out)));
  return {};
}

Result<void> Connection::enter(const std::string& name) {
  std::array<std::byte, 18> greeting;
  TRY(receive_exactly(greeting));
  const auto flags = load_be<uint16_t>(greeting, 16);
  if (load_be<uint64_t>(greeting, 0) != nbd::kMagic ||
      load_be<uint64_t>(greeting, 8) != nbd::kOptionMagic ||
      (flags & nbd::kFlagFixedNewstyle) == 0 || (flags & nbd::kFlagNoZeroes) == 0) {
    return fail(ErrorKind::kUnsupported, "this is no NBD server of the fixed newstyle");
  }
  std::vector<std::byte> option(20 + name.size());
  store_be<uint32_t>(option, 0, nbd::kClientFixedNewstyle | nbd::kClientNoZeroes);
  store_be<uint64_t>(option, 4, nbd::kOptionMagic);
  store_be<uint32_t>(option, 12, static_cast<uint32_t>(nbd::Option::kExportName));
  store_be<uint32_t>(option, 16, static_cast<uint32_t>(name.size()));
  std::memcpy(option.data() + 20, name.data(), name.size());
  TRY(send(option));
  std::array<std::byte, 10> answer;
  if (auto answered = receive_exactly(answer); !answered) {
    return with_context(std::move(answered.error()), fmt::format("entering export \"{}\": ", name));
  }
  export_size_ = load_be<uint64_t>(answer, 0);
  return {};
}

}  // namespace underlay::bench
