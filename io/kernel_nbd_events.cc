#include <linux/nbd-netlink.h>
#include <netlink/attr.h>
#include <netlink/errno.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

#include "io/kernel_nbd.h"
#include "io/kernel_nbd_netlink.h"

namespace underlay {
namespace {

int on_event(nl_msg* message, void* data) {
  const nlmsghdr* header = ::nlmsg_hdr(message);
  if (::genlmsg_valid_hdr(::nlmsg_hdr(message), 0) == 0) return NL_SKIP;
  const auto* generic = static_cast<const genlmsghdr*>(::nlmsg_data(header));
  const nlattr* index = ::nlmsg_find_attr(::nlmsg_hdr(message), GENL_HDRLEN, NBD_ATTR_INDEX);
  if (generic->cmd != NBD_CMD_LINK_DEAD || index == nullptr ||
      ::nla_len(index) != sizeof(uint32_t)) {
    return NL_SKIP;
  }
  static_cast<std::vector<unsigned>*>(data)->push_back(::nla_get_u32(index));
  return NL_OK;
}

}  // namespace

Result<KernelNbdEvents> KernelNbdEvents::open() {
  NetlinkSocket socket = TRY(nbd_netlink::open_socket());
  const int group =
      ::genl_ctrl_resolve_grp(socket.get(), NBD_GENL_FAMILY_NAME, NBD_GENL_MCAST_GROUP_NAME);
  if (group == -NLE_OBJ_NOTFOUND) return nbd_netlink::no_nbd();
  int code = group;
  if (code >= 0) code = ::nl_socket_add_membership(socket.get(), group);
  if (code >= 0) code = ::nl_socket_set_nonblocking(socket.get());
  if (code < 0) {
    return fail(ErrorKind::kIo, "cannot listen to the kernel's nbd: {}", ::nl_geterror(code));
  }
  ::nl_socket_disable_seq_check(socket.get());  // events answer no command
  return KernelNbdEvents(std::move(socket));
}

int KernelNbdEvents::fd() const { return ::nl_socket_get_fd(socket_.get()); }

Result<std::vector<unsigned>> KernelNbdEvents::take() {
  std::vector<unsigned> lost;
  ::nl_socket_modify_cb(socket_.get(), NL_CB_VALID, NL_CB_CUSTOM, on_event, &lost);
  int code = 0;
  do {
    code = ::nl_recvmsgs_default(socket_.get());
  } while (code >= 0);
  if (code == -NLE_AGAIN) return lost;
  return fail(ErrorKind::kIo, "events of the kernel's nbd are lost: {}", ::nl_geterror(code));
}

}  // namespace underlay
