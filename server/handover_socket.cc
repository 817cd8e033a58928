#include "server/handover_socket.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace underlay::handover {

Result<pid_t> trusted_peer(int socket) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
    return fail_errno(errno, "cannot tell who is at the other end of the hand-over's socket");
  }
  if (peer.uid != 0 && peer.uid != ::geteuid()) {
    return fail(ErrorKind::kDenied,
                "process {} at the other end of the hand-over's socket runs as user {}: only user "
                "{} and root may",
                peer.pid, peer.uid, ::geteuid());
  }
  return peer.pid;
}

Packet::Packet(const Message& message, int descriptor) : bytes_(encode(message)) {
  vector_ = {bytes_.data(), bytes_.size()};
  header_.msg_iov = &vector_;
  header_.msg_iovlen = 1;
  if (descriptor < 0) return;
  header_.msg_control = control_.data();
  header_.msg_controllen = control_.size();
  cmsghdr* control = CMSG_FIRSTHDR(&header_);
  control->cmsg_level = SOL_SOCKET;
  control->cmsg_type = SCM_RIGHTS;
  control->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(control), &descriptor, sizeof(descriptor));
}

Result<void> send_now(int socket, const Message& message) {
  const Packet packet(message, -1);
  if (::sendmsg(socket, &packet.header(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return {};
  return fail_errno(errno, "cannot send to the other process of the hand-over");
}

Result<Message> understand(ByteSpan buffer, size_t size) {
  if (size == 0) return fail(ErrorKind::kIo, "the other process has left");
  if (size > buffer.size() || size > kMaxMessage) {
    return fail(ErrorKind::kMalformed, "a message of a hand-over has more than {} bytes",
                std::min(buffer.size(), kMaxMessage));
  }
  return decode(buffer.first(size));
}

Result<Received> receive_now(int socket) {
  std::vector<std::byte> buffer(kMaxMessage);
  iovec vector{buffer.data(), buffer.size()};
  // Room for more than are expected, so that a surplus is noticed and closed.
  constexpr size_t kDescriptors = 4;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kDescriptors * sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t got = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  // Told once, when the other side has left without reading all. What it said before comes after.
  if (got < 0 && errno == ECONNRESET) {
    got = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  }
  if (got < 0) return fail_errno(errno, "cannot receive from the other process of the hand-over");

  std::vector<UniqueFd> descriptors;
  for (cmsghdr* at = CMSG_FIRSTHDR(&header); at != nullptr; at = CMSG_NXTHDR(&header, at)) {
    if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(at) + i * sizeof(int), sizeof(fd));
      descriptors.emplace_back(fd);
    }
  }
  if ((header.msg_flags & MSG_TRUNC) != 0) {
    return fail(ErrorKind::kMalformed, "a message of a hand-over has more than {} bytes",
                kMaxMessage);
  }
  Message message = TRY(understand(buffer, static_cast<size_t>(got)));
  const bool whole = (header.msg_flags & MSG_CTRUNC) == 0;
  if (!whole || descriptors.size() != descriptors_with(message)) {
    return fail(ErrorKind::kMalformed,
                "{} descriptors came with a message of a hand-over that wants {}{}",
                descriptors.size(), descriptors_with(message),
                whole ? "" : ": too many files are open (ulimit -n, LimitNOFILE=)");
  }
  UniqueFd descriptor = descriptors.empty() ? UniqueFd() : std::move(descriptors.front());
  return Received{std::move(message), std::move(descriptor)};
}

}  // namespace underlay::handover
