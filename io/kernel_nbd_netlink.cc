#include "io/kernel_nbd_netlink.h"

#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <netlink/attr.h>
#include <netlink/errno.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <utility>

namespace underlay {

void CloseNetlink::operator()(nl_sock* socket) const { ::nl_socket_free(socket); }

namespace nbd_netlink {
namespace {

constexpr timeval kAnswerLimit{.tv_sec = 10, .tv_usec = 0};

struct FreeCallbacks {
  void operator()(nl_cb* callbacks) const { ::nl_cb_put(callbacks); }
};

// What is known of the answer to one command; libnl hands it to the callbacks below.
struct Answer {
  uint32_t sequence = 0;
  const ReplyHandler* on_reply = nullptr;
  bool done = false;
  int sys_errno = 0;
  std::string words;
};

// An answer that came too late for an earlier command is not for this one.
int on_sequence(nl_msg* message, void* data) {
  const auto& answer = *static_cast<Answer*>(data);
  return ::nlmsg_hdr(message)->nlmsg_seq == answer.sequence ? NL_OK : NL_SKIP;
}

int on_reply(nl_msg* message, void* data) {
  (*static_cast<Answer*>(data)->on_reply)(message);
  return NL_OK;
}

int on_end(nl_msg*, void* data) {
  static_cast<Answer*>(data)->done = true;
  return NL_STOP;
}

// The kernel's own words about an error, "" when it has none: NLMSGERR_ATTR_MSG, behind the copy of
// the command, which NETLINK_CAP_ACK cuts down to its header.
std::string kernel_words(nlmsgerr* error) {
  const auto* header = reinterpret_cast<nlmsghdr*>(reinterpret_cast<char*>(error) - NLMSG_HDRLEN);
  const int fixed = static_cast<int>(sizeof(nlmsgerr));
  const int length = ::nlmsg_datalen(header) - fixed;
  if ((header->nlmsg_flags & NLM_F_ACK_TLVS) == 0 || (header->nlmsg_flags & NLM_F_CAPPED) == 0 ||
      length <= 0) {
    return "";
  }
  const nlattr* words =
      ::nla_find(reinterpret_cast<const nlattr*>(error + 1), length, NLMSGERR_ATTR_MSG);
  if (words == nullptr) return "";
  const auto* text = static_cast<const char*>(::nla_data(words));
  return std::string(text, ::strnlen(text, static_cast<size_t>(::nla_len(words))));
}

int on_error(sockaddr_nl*, nlmsgerr* error, void* data) {
  auto& answer = *static_cast<Answer*>(data);
  if (error->msg.nlmsg_seq != answer.sequence) return NL_SKIP;
  answer.done = true;
  answer.sys_errno = -error->error;
  answer.words = kernel_words(error);
  return NL_STOP;
}

Failure netlink_failure(std::string_view what, int code) {
  return fail(ErrorKind::kIo, "{}: {}", what, ::nl_geterror(code));
}

bool set_option(int fd, int level, int option, const void* value, size_t size) {
  return ::setsockopt(fd, level, option, value, static_cast<socklen_t>(size)) == 0;
}

}  // namespace

Result<NetlinkSocket> open_socket() {
  NetlinkSocket socket(::nl_socket_alloc());
  if (!socket) return fail(ErrorKind::kLimit, "no memory left for a netlink socket");
  // libnl opens it close-on-exec.
  if (const int code = ::genl_connect(socket.get()); code < 0) {
    return netlink_failure("cannot connect to the kernel's generic netlink", code);
  }
  const int fd = ::nl_socket_get_fd(socket.get());
  if (!set_option(fd, SOL_SOCKET, SO_RCVTIMEO, &kAnswerLimit, sizeof(kAnswerLimit))) {
    return fail_errno(errno, "cannot limit the wait for the kernel's answers");
  }
  // Only for better messages: kernels before 4.12 have neither.
  const int on = 1;
  (void)set_option(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
  (void)set_option(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
  return socket;
}

Failure no_nbd() {
  return fail(ErrorKind::kUnsupported,
              "the kernel has no nbd, or shows it to the host's network namespace only: load it "
              "with 'modprobe nbd nbds_max=0 max_part=0', and run outside of containers");
}

Result<int> find_family(nl_sock* socket) {
  const int family = ::genl_ctrl_resolve(socket, NBD_GENL_FAMILY_NAME);
  if (family >= 0) return family;
  if (family == -NLE_OBJ_NOTFOUND) return no_nbd();
  return netlink_failure("cannot find the kernel's nbd", family);
}

Message::Message(int family, uint8_t command) : message_(::nlmsg_alloc()) {
  complete_ =
      message_ != nullptr && ::genlmsg_put(message_.get(), NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0,
                                           command, NBD_GENL_VERSION) != nullptr;
}

void Message::add(int attribute, uint32_t value) {
  complete_ = complete_ && ::nla_put_u32(message_.get(), attribute, value) == 0;
}

void Message::add(int attribute, uint64_t value) {
  complete_ = complete_ && ::nla_put_u64(message_.get(), attribute, value) == 0;
}

void Message::add(int attribute, const std::string& value) {
  complete_ = complete_ && ::nla_put_string(message_.get(), attribute, value.c_str()) == 0;
}

void Message::add_sockets(std::span<const int> sockets) {
  nlattr* list = complete_ ? ::nla_nest_start(message_.get(), NBD_ATTR_SOCKETS) : nullptr;
  complete_ = list != nullptr;
  for (const int socket : sockets) {
    nlattr* item = complete_ ? ::nla_nest_start(message_.get(), NBD_SOCK_ITEM) : nullptr;
    complete_ = item != nullptr &&
                ::nla_put_u32(message_.get(), NBD_SOCK_FD, static_cast<uint32_t>(socket)) == 0;
    if (complete_) ::nla_nest_end(message_.get(), item);
  }
  if (complete_) ::nla_nest_end(message_.get(), list);
}

Result<void> exchange(nl_sock* socket, const Message& message, const ReplyHandler& handler) {
  if (!message.complete()) {
    return fail(ErrorKind::kLimit, "the command does not fit in a netlink message");
  }
  const std::unique_ptr<nl_cb, FreeCallbacks> callbacks(::nl_cb_alloc(NL_CB_DEFAULT));
  if (!callbacks) return fail(ErrorKind::kLimit, "no memory left for a netlink message");
  Answer answer;
  answer.on_reply = &handler;
  ::nl_cb_set(callbacks.get(), NL_CB_SEQ_CHECK, NL_CB_CUSTOM, on_sequence, &answer);
  ::nl_cb_set(callbacks.get(), NL_CB_VALID, NL_CB_CUSTOM, on_reply, &answer);
  ::nl_cb_set(callbacks.get(), NL_CB_ACK, NL_CB_CUSTOM, on_end, &answer);
  ::nl_cb_err(callbacks.get(), NL_CB_CUSTOM, on_error, &answer);

  if (const int code = ::nl_send_auto(socket, message.get()); code < 0) {
    return netlink_failure("cannot send to the kernel", code);
  }
  answer.sequence = ::nlmsg_hdr(message.get())->nlmsg_seq;
  while (!answer.done) {
    const int code = ::nl_recvmsgs(socket, callbacks.get());
    if (code == -NLE_AGAIN) {
      return fail_errno(ETIMEDOUT, "the kernel does not answer within {} s", kAnswerLimit.tv_sec);
    }
    if (code < 0 && !answer.done) return netlink_failure("cannot hear the kernel", code);
  }
  if (answer.sys_errno == 0) return {};
  return fail_errno(answer.sys_errno, "{}", answer.words);
}

}  // namespace nbd_netlink
}  // namespace underlay
