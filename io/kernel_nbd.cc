#include "io/kernel_nbd.h"

#include <linux/capability.h>
#include <linux/nbd-netlink.h>
#include <linux/nbd.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <thread>

#include "io/kernel_nbd_netlink.h"

namespace underlay {
namespace {

using nbd_netlink::Message;

constexpr uint64_t kSectorBytes = 512;
// udev looks at a device that came or went, and the kernel calls it busy meanwhile.
constexpr std::chrono::milliseconds kBusyLimit{1000};
constexpr std::chrono::milliseconds kBusyPause{20};

Failure denied() {
  return fail(ErrorKind::kDenied,
              "needs root: the kernel lets only CAP_SYS_ADMIN, outside of user namespaces, change "
              "nbd devices");
}

bool may_administrate() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
  if (::syscall(SYS_capget, &header, data.data()) != 0) return false;
  return (data[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective & CAP_TO_MASK(CAP_SYS_ADMIN)) != 0;
}

// What the operator reads when the kernel said no to `what` ("connect").
Failure refused(Error error, std::string_view what, const std::string& device) {
  switch (error.sys_errno) {
    case EPERM:
      return in_file(denied(), device);
    case ENOENT:
    case ENODEV:
      return in_file(fail(ErrorKind::kNotFound, "the kernel has no such nbd device"), device);
    default:
      break;
  }
  const bool kernel_spoke = !error.message.empty() && error.sys_errno != 0;
  error.message = fmt::format("cannot {}{}{}{}", what, error.message.empty() ? "" : ": ",
                              error.message, kernel_spoke ? "" : " (dmesg may say why)");
  return in_file(std::move(error), device);
}

Result<void> check_config(const KernelNbdConfig& config, std::span<const int> sockets) {
  if (sockets.empty()) return fail(ErrorKind::kUsage, "no connection to attach");
  if (sockets.size() > 1 && (config.transmission_flags & NBD_FLAG_CAN_MULTI_CONN) == 0) {
    return fail(ErrorKind::kUsage,
                "{} connections to a server that does not allow more than one (CAN_MULTI_CONN): "
                "use one",
                sockets.size());
  }
  if (config.size_bytes == 0 || config.size_bytes % kSectorBytes != 0) {
    return fail(ErrorKind::kUsage,
                "the size, {} bytes, is no multiple of {} above 0: the kernel would cut it",
                config.size_bytes, kSectorBytes);
  }
  const long page = ::sysconf(_SC_PAGESIZE);
  if (!std::has_single_bit(config.block_size) || config.block_size < kSectorBytes ||
      config.block_size > static_cast<uint64_t>(page)) {
    return fail(ErrorKind::kUsage, "the block size, {} bytes, is no power of two from {} to {}",
                config.block_size, kSectorBytes, page);
  }
  if (config.size_bytes % config.block_size != 0) {
    return fail(ErrorKind::kUsage,
                "the size, {} bytes, is no multiple of the block size, {} bytes: the rest could "
                "not be read",
                config.size_bytes, config.block_size);
  }
  return {};
}

// The guard that keeps one attachment's sockets and commands off another's device. Without
// `backend` any connected device will do.
Result<void> check_backend(unsigned index, const std::optional<std::string>& backend) {
  const auto device = TRY(find_kernel_nbd(index));
  if (!device)
    return in_file(fail(ErrorKind::kNotFound, "is not connected"), kernel_nbd_path(index));
  if (!backend || device->backend == *backend) return {};
  return in_file(
      fail(ErrorKind::kUsage, "belongs to another attachment: its backend is \"{}\", not \"{}\"",
           printable(device->backend, 200), printable(*backend, 200)),
      device->path);
}

Failure busy(bool connected, const std::string& device) {
  if (connected) {
    return in_file(fail(ErrorKind::kUsage,
                        "is connected already, or still open somewhere since it was disconnected: "
                        "disconnect it (underlay-nbd -d), or take another device"),
                   device);
  }
  return in_file(
      fail(ErrorKind::kUsage, "is held open by another program: end that, or take another device"),
      device);
}

void add_config(const KernelNbdConfig& config, Message& message) {
  if (config.index) message.add(NBD_ATTR_INDEX, uint32_t{*config.index});
  message.add(NBD_ATTR_SIZE_BYTES, config.size_bytes);
  message.add(NBD_ATTR_BLOCK_SIZE_BYTES, uint64_t{config.block_size});
  message.add(NBD_ATTR_SERVER_FLAGS, uint64_t{config.transmission_flags});
  message.add(NBD_ATTR_TIMEOUT, static_cast<uint64_t>(config.recovery_timeout.count()));
  message.add(NBD_ATTR_DEAD_CONN_TIMEOUT, static_cast<uint64_t>(config.dead_timeout.count()));
  message.add(NBD_ATTR_BACKEND_IDENTIFIER, config.backend);
}

}  // namespace

Result<KernelNbd> KernelNbd::open() {
  if (!may_administrate()) return denied();
  NetlinkSocket socket = TRY(nbd_netlink::open_socket());
  const int family = TRY(nbd_netlink::find_family(socket.get()));
  return KernelNbd(std::move(socket), family);
}

Result<unsigned> KernelNbd::connect(const KernelNbdConfig& config, std::span<const int> sockets) {
  const std::string device = config.index ? kernel_nbd_path(*config.index) : "nbd";
  if (auto checked = check_config(config, sockets); !checked) {
    return in_file(std::move(checked).error(), device);
  }
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    auto index = try_connect(config, sockets);
    if (index) return index;
    if (index.error().sys_errno != EBUSY) {
      return refused(std::move(index).error(), "connect", device);
    }
    const bool connected = config.index && TRY(find_kernel_nbd(*config.index));
    if (connected || std::chrono::steady_clock::now() - start > kBusyLimit) {
      return busy(connected, device);
    }
    std::this_thread::sleep_for(kBusyPause);
  }
}

Result<unsigned> KernelNbd::try_connect(const KernelNbdConfig& config,
                                        std::span<const int> sockets) {
  Message message(family_, NBD_CMD_CONNECT);
  add_config(config, message);
  message.add_sockets(sockets);
  std::optional<unsigned> index = config.index;
  const auto take_index = [&](nl_msg* reply) {
    const nlattr* attribute = ::nlmsg_find_attr(::nlmsg_hdr(reply), GENL_HDRLEN, NBD_ATTR_INDEX);
    if (attribute != nullptr && ::nla_len(attribute) == sizeof(uint32_t)) {
      index = ::nla_get_u32(attribute);
    }
  };
  TRY(nbd_netlink::exchange(socket_.get(), message, take_index));
  if (!index) return fail(ErrorKind::kIo, "the kernel does not say which device it took");
  return *index;
}

Result<void> KernelNbd::reconfigure(unsigned index, const std::string& backend,
                                    std::span<const int> sockets) {
  const std::string device = kernel_nbd_path(index);
  TRY(check_backend(index, backend));  // the kernel does, too, but says only EINVAL
  Message message(family_, NBD_CMD_RECONFIGURE);
  message.add(NBD_ATTR_INDEX, uint32_t{index});
  message.add(NBD_ATTR_BACKEND_IDENTIFIER, backend);
  message.add_sockets(sockets);
  auto done = nbd_netlink::exchange(socket_.get(), message, [](nl_msg*) {});
  if (!done) return refused(std::move(done).error(), "give it new connections", device);
  return {};
}

Result<void> KernelNbd::disconnect(unsigned index, const std::optional<std::string>& backend) {
  TRY(check_backend(index, backend));
  Message message(family_, NBD_CMD_DISCONNECT);
  message.add(NBD_ATTR_INDEX, uint32_t{index});
  auto done = nbd_netlink::exchange(socket_.get(), message, [](nl_msg*) {});
  if (!done) return refused(std::move(done).error(), "disconnect", kernel_nbd_path(index));
  return {};
}

}  // namespace underlay
