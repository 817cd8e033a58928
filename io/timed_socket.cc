#include "io/timed_socket.h"

#include <fcntl.h>
#include <linux/tls.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <memory>

namespace underlay {
namespace {

// RFC 8446, "Record Protocol". Plain sockets have data only.
constexpr uint8_t kAlertRecord = 21;
constexpr uint8_t kHandshakeRecord = 22;
constexpr uint8_t kDataRecord = 23;
// Two tickets, as OpenSSL sends them, have less than 1 KiB; each may hold the client's
// certificates.
constexpr size_t kMaxSkipped = 64 << 10;

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

Result<Addresses> look_up(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int status = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &list);
  if (status == 0) return Addresses(list);
  const ErrorKind kind = status == EAI_NONAME ? ErrorKind::kNotFound : ErrorKind::kIo;
  return fail(kind, "host \"{}\", port {}: {}", printable(host, 255), port, ::gai_strerror(status));
}

// Requests are short and answered one by one; and the peer may vanish without a word while nothing
// is asked: keep-alive finds out.
void set_options(int fd) {
  const int on = 1;
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  (void)::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

struct Part {
  size_t bytes = 0;
  uint8_t record = kDataRecord;
};

uint8_t record_type(msghdr& message) {
  const cmsghdr* const control = CMSG_FIRSTHDR(&message);
  if (control == nullptr || control->cmsg_level != SOL_TLS ||
      control->cmsg_type != TLS_GET_RECORD_TYPE) {
    return kDataRecord;
  }
  return *CMSG_DATA(control);
}

// 0 bytes: nothing yet. Never a mixture of data and other records.
Result<Part> receive_part(int fd, MutableByteSpan out) {
  iovec place{.iov_base = out.data(), .iov_len = out.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(uint8_t))> control{};
  msghdr message{};
  message.msg_iov = &place;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = ::recvmsg(fd, &message, MSG_DONTWAIT);
  if (got > 0) return Part{.bytes = static_cast<size_t>(got), .record = record_type(message)};
  if (got == 0) return fail(ErrorKind::kIo, "the server closed the connection");
  if (errno == EAGAIN || errno == EINTR) return Part{};
  return fail_errno(errno, "the connection broke");
}

Failure alert(ByteSpan bytes) {
  return fail(ErrorKind::kDenied,
              "the server ended the connection with TLS alert {}: its log may say why",
              std::to_integer<unsigned>(bytes.back()));
}

}  // namespace

Result<TimedSocket> TimedSocket::connect_tcp(const std::string& host, const std::string& port,
                                             Clock::time_point until) {
  const Addresses addresses = TRY(look_up(host, port));
  Error last =
      fail(ErrorKind::kNotFound, "host \"{}\" has no address", printable(host, 255)).value();
  int left = 0;
  for (const addrinfo* one = addresses.get(); one != nullptr; one = one->ai_next) ++left;
  for (const addrinfo* one = addresses.get(); one != nullptr; one = one->ai_next, --left) {
    UniqueFd fd(::socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) {
      last = fail_errno(errno, "host \"{}\"", printable(host, 255)).value();
      continue;
    }
    // An address from which nothing comes leaves time for the others.
    const auto now = Clock::now();
    TimedSocket socket(std::move(fd), now + (until - now) / left);
    const bool begun = ::connect(socket.fd(), one->ai_addr, one->ai_addrlen) == 0;
    Result<void> connected;
    if (!begun && errno == EINPROGRESS) {
      connected = socket.finish_connecting();
    } else if (!begun) {
      connected = fail_errno(errno, "host \"{}\", port {}", printable(host, 255), port);
    }
    if (connected) {
      socket.until_ = until;
      set_options(socket.fd());
      return socket;
    }
    last = std::move(connected).error();
  }
  return Failure(std::move(last));
}

Result<void> TimedSocket::finish_connecting() const {
  TRY(wait(POLLOUT));
  int error = 0;
  socklen_t length = sizeof(error);
  if (::getsockopt(fd(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (error != 0) return fail_errno(error, "the server cannot be reached");
  return {};
}

Result<TimedSocket> TimedSocket::adopt(UniqueFd connected, Clock::time_point until) {
  const int flags = ::fcntl(connected.get(), F_GETFL);
  if (flags < 0 || ::fcntl(connected.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail_errno(errno, "the socket cannot be used");
  }
  return TimedSocket(std::move(connected), until);
}

Result<UniqueFd> TimedSocket::release() && {
  const int flags = ::fcntl(fd(), F_GETFL);
  if (flags < 0 || ::fcntl(fd(), F_SETFL, flags & ~O_NONBLOCK) != 0) {
    return fail_errno(errno, "the socket cannot be handed over");
  }
  return std::move(socket_);
}

Result<void> TimedSocket::wait(short events) const {
  using std::chrono::milliseconds;
  while (true) {
    const auto left = std::chrono::ceil<milliseconds>(until_ - Clock::now());
    if (left <= milliseconds(0)) {
      return fail(ErrorKind::kIo, "the server did not answer in time");
    }
    constexpr milliseconds kLongest{std::numeric_limits<int>::max()};
    pollfd ready{.fd = fd(), .events = events, .revents = 0};
    const int count = ::poll(&ready, 1, static_cast<int>(std::min(left, kLongest).count()));
    if (count > 0) return {};
    if (count < 0 && errno != EINTR) return fail_errno(errno, "cannot wait for the server");
  }
}

Result<void> TimedSocket::send(ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      bytes = bytes.subspan(static_cast<size_t>(sent));
    } else if (errno == EAGAIN || errno == EINTR) {
      TRY(wait(POLLOUT));
    } else {
      return fail_errno(errno, "the connection broke");
    }
  }
  return {};
}

Result<void> TimedSocket::receive(MutableByteSpan out) {
  size_t skipped = 0;
  while (!out.empty()) {
    const Part part = TRY(receive_part(fd(), out));
    if (part.bytes == 0) {
      TRY(wait(POLLIN));
    } else if (part.record == kDataRecord) {
      out = out.subspan(part.bytes);
    } else if (part.record == kAlertRecord) {
      return alert(out.first(part.bytes));
    } else if (part.record != kHandshakeRecord || (skipped += part.bytes) > kMaxSkipped) {
      return fail(ErrorKind::kMalformed,
                  "the server sent TLS records of type {} where an answer should be", part.record);
    }
    // A key update would be skipped, too: no record behind it can be decrypted, which is an error.
  }
  return {};
}

}  // namespace underlay
