// Generic netlink messages to the kernel's nbd and its answers. For kernel_nbd's files only.
#pragma once

#include <netlink/msg.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "io/error.h"
#include "io/kernel_nbd.h"

namespace underlay::nbd_netlink {

// A netlink socket that is connected to generic netlink and does not outlive an exec().
Result<NetlinkSocket> open_socket();

// The number of the family "nbd"; kUnsupported, saying what to load, when the kernel has none.
Result<int> find_family(nl_sock* socket);

// kUnsupported with what to do: the kernel, or this network namespace, has no nbd.
Failure no_nbd();

// A command for the kernel's nbd. What cannot be added is reported by exchange().
class Message {
 public:
  Message(int family, uint8_t command);
  void add(int attribute, uint32_t value);
  void add(int attribute, uint64_t value);
  void add(int attribute, const std::string& value);
  void add_sockets(std::span<const int> sockets);

  nl_msg* get() const { return message_.get(); }
  bool complete() const { return complete_; }

 private:
  struct Free {
    void operator()(nl_msg* message) const { ::nlmsg_free(message); }
  };
  std::unique_ptr<nl_msg, Free> message_;
  bool complete_ = true;
};

// Called with each message that answers a command.
using ReplyHandler = std::function<void(nl_msg*)>;

// Sends the command and waits for its end. An error has the kernel's errno, and its words (if any)
// as message. Gives up when no answer comes; the kernel carries commands out while they are sent,
// and that has no limit.
Result<void> exchange(nl_sock* socket, const Message& message, const ReplyHandler& on_reply);

}  // namespace underlay::nbd_netlink
