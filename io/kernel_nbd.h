// The kernel's nbd devices, driven over generic netlink (family "nbd") and seen in sysfs. The only
// code that talks netlink to the kernel. Knows nothing of what is served.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/error.h"

struct nl_sock;

namespace underlay {

struct CloseNetlink {
  void operator()(nl_sock* socket) const;
};
using NetlinkSocket = std::unique_ptr<nl_sock, CloseNetlink>;

// What the kernel is told when a device is connected.
struct KernelNbdConfig {
  std::optional<unsigned> index;    // nullopt: the kernel chooses, which cannot race with udev
  uint64_t size_bytes = 0;          // a multiple of 512; the kernel would drop a smaller tail
  uint32_t block_size = 512;        // bytes, a power of two, 512 to the page size
  uint16_t transmission_flags = 0;  // as the NBD handshake gave them; READ_ONLY makes it so
  // After a connection died, requests that were in flight are sent again when this has passed. A
  // server that takes longer to answer is cut off. 0 means 30 s to the kernel.
  std::chrono::seconds recovery_timeout{5};
  // For how long requests wait for a new connection when none is left; then they fail. 0: at once.
  std::chrono::seconds dead_timeout{300};
  std::string backend;  // unique for the attachment; every later change must repeat it
};

// A device as sysfs shows it. All of it may change at any time.
struct KernelNbdDevice {
  unsigned index = 0;
  std::string path;  // "/dev/nbdN"
  std::string backend;
  uint64_t size_bytes = 0;
  bool read_only = false;
};

// A netlink socket to the kernel's nbd. For one thread. An answer that does not come is waited for
// 10 s; while the kernel itself hangs in a command, nothing can interrupt it.
class KernelNbd {
 public:
  // kDenied without CAP_SYS_ADMIN; kUnsupported, saying what to load, when the kernel has no nbd.
  static Result<KernelNbd> open();

  // Makes a device of `sockets`, each with the handshake done and simple replies. The kernel keeps
  // what it needs of them: the caller closes its own. Returns the device's index. More than one
  // socket needs CAN_MULTI_CONN in the flags. kUsage when the device that was asked for is in use,
  // be it by a program that has it open (udev's short looks are waited for).
  Result<unsigned> connect(const KernelNbdConfig& config, std::span<const int> sockets);

  // Gives a device new sockets in place of dead ones. With none dead the kernel drops them and says
  // nothing. Fails when `backend` is not the one the device was connected with (kUsage), and when
  // the device is not connected (kNotFound).
  Result<void> reconfigure(unsigned index, const std::string& backend,
                           std::span<const int> sockets);

  // Takes the device down, also when something uses it: the caller has looked for holders. With
  // `backend`, fails when the device is not that one (kUsage). kNotFound when it is not connected.
  Result<void> disconnect(unsigned index, const std::optional<std::string>& backend);

 private:
  KernelNbd(NetlinkSocket socket, int family) : socket_(std::move(socket)), family_(family) {}
  Result<unsigned> try_connect(const KernelNbdConfig& config, std::span<const int> sockets);

  NetlinkSocket socket_;
  int family_;
};

// Hears of connections that died.
class KernelNbdEvents {
 public:
  static Result<KernelNbdEvents> open();

  int fd() const;  // readable when there is something to take
  // Indexes of devices that have lost a connection since the last call: one entry for each lost
  // connection. Does not block. An error says that events were lost: look at every device then.
  Result<std::vector<unsigned>> take();

 private:
  explicit KernelNbdEvents(NetlinkSocket socket) : socket_(std::move(socket)) {}

  NetlinkSocket socket_;
};

// The devices that are connected, by index, which does not mean that a connection is alive. One
// that was disconnected while a program had it open counts until that closes it. Reads sysfs only:
// needs no rights. (The kernel's STATUS command counts devices that are merely open.)
Result<std::vector<KernelNbdDevice>> connected_kernel_nbd();

// The same of one device; nullopt when it is not connected.
Result<std::optional<KernelNbdDevice>> find_kernel_nbd(unsigned index);

// "/dev/nbd7", also by another name of that node -> 7. "/dev/nbd7" need not exist: the kernel makes
// devices as they are asked for. kUsage for anything else.
Result<unsigned> kernel_nbd_index(const std::string& device);

// 7 -> "/dev/nbd7".
std::string kernel_nbd_path(unsigned index);

}  // namespace underlay
