// The socket between a server and its successor: who is at the other end, and whole messages with
// their descriptors.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <array>
#include <vector>

#include "io/unique_fd.h"
#include "server/handover_message.h"

namespace underlay::handover {

// The process at the other end, which must run as the same user, or as root. Its process ID is 0
// when it lives in another namespace.
Result<pid_t> trusted_peer(int socket);

// A message ready for sendmsg(), with the descriptor that travels with it (-1 for none; it stays
// the caller's). Lives at its address until it has been sent.
class Packet {
 public:
  Packet(const Message& message, int descriptor);
  Packet(const Packet&) = delete;
  Packet& operator=(const Packet&) = delete;
  const msghdr& header() const { return header_; }

 private:
  std::vector<std::byte> bytes_;
  iovec vector_{};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control_{};
  msghdr header_{};
};

// Sends without waiting: fails when the other side has gone, or does not read.
Result<void> send_now(int socket, const Message& message);

struct Received {
  Message message;
  UniqueFd descriptor;  // valid when descriptors_with(message) is 1
};
// The next message. Does not wait: there must be one, or an end. Descriptors that have no place are
// closed.
Result<Received> receive_now(int socket);

// What a message of `size` bytes says that came without descriptors; 0 bytes: the other side left.
Result<Message> understand(ByteSpan buffer, size_t size);

}  // namespace underlay::handover
