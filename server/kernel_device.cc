#include "server/kernel_device.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <random>
#include <thread>

#include "io/block_device_holders.h"
#include "io/nbd_dial.h"

namespace underlay {
namespace {

constexpr std::chrono::seconds kHandshakeLimit{10};
// A file system that answers late must not cost the connection. After this process was killed,
// requests that were in flight hang for as long; all others fail at once, since nobody will give
// the device another server.
constexpr std::chrono::seconds kRecoveryTimeout{60};
constexpr std::chrono::seconds kDeadTimeout{0};

// Each connection has a queue in the kernel, of which a processor uses one. Where others may
// connect as well, -e is mostly meant for them.
unsigned connection_count(const Options& options) {
  if (options.address_given || options.max_clients == 1) return 1;
  const unsigned processors = std::max(1u, std::thread::hardware_concurrency());
  return options.max_clients == 0 ? processors : std::min(options.max_clients, processors);
}

std::string unique_backend() {
  std::random_device random;
  return fmt::format("underlay-nbd-{}-{:08x}{:08x}", ::getpid(), random(), random());
}

bool is_gone(const Error& error) {
  return error.kind == ErrorKind::kNotFound || error.kind == ErrorKind::kUsage;
}

}  // namespace

KernelDevice::KernelDevice(KernelNbd kernel, std::string path, unsigned index)
    : kernel_(std::move(kernel)),
      path_(std::move(path)),
      index_(index),
      backend_(unique_backend()) {}

Result<KernelDevice> KernelDevice::prepare(const Options& options) {
  const unsigned index = TRY(kernel_nbd_index(options.device));
  auto kernel = KernelNbd::open();
  if (!kernel) return in_file(std::move(kernel).error(), options.device);
  KernelDevice device(*std::move(kernel), options.device, index);
  device.export_name_ = options.exports.front().name;
  for (unsigned i = 0; i < connection_count(options); ++i) {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
      return fail_errno(errno, "cannot make a pair of sockets");
    }
    device.server_ends_.emplace_back(ends[0]);
    device.kernel_ends_.emplace_back(ends[1]);
  }
  return device;
}

Result<void> KernelDevice::connect() {
  KernelNbdConfig config{.index = index_,
                         .recovery_timeout = kRecoveryTimeout,
                         .dead_timeout = kDeadTimeout,
                         .backend = backend_};
  std::vector<UniqueFd> sockets;
  std::vector<int> numbers;
  for (UniqueFd& end : kernel_ends_) {
    auto dialed = dial_nbd_over(std::move(end), export_name_, kHandshakeLimit);
    if (!dialed) return in_file(std::move(dialed).error(), path_);
    config.size_bytes = dialed->size_bytes;
    config.transmission_flags = dialed->transmission_flags;
    sockets.push_back(std::move(dialed->socket));
    numbers.push_back(sockets.back().get());
  }
  kernel_ends_.clear();
  TRY(kernel_.connect(config, numbers));
  return {};
}

Result<void> KernelDevice::disconnect() {
  auto disconnected = kernel_.disconnect(index_, backend_);
  if (!disconnected && is_gone(disconnected.error())) return {};
  return disconnected;
}

Result<void> disconnect_device(const std::string& device, std::ostream& out,
                               std::ostream& warnings) {
  const unsigned index = TRY(kernel_nbd_index(device));
  auto kernel = KernelNbd::open();
  if (!kernel) return in_file(std::move(kernel).error(), device);
  std::vector<std::string> holders;
  if (::access(device.c_str(), F_OK) == 0) holders = TRY(block_device_holders(device));
  auto disconnected = kernel->disconnect(index, std::nullopt);
  if (!disconnected) {
    if (disconnected.error().kind != ErrorKind::kNotFound) return disconnected;
    if (::access(device.c_str(), F_OK) != 0)
      return in_file(fail_errno(errno, "cannot disconnect"), device);
  }
  if (disconnected && !holders.empty()) {
    warnings << fmt::format(
        "underlay-nbd: warning: {} was in use by {}: their reads fail from now on\n",
        printable(device), printable(join_holders(holders)));
  }
  out << fmt::format("{} disconnected\n", device);
  return {};
}

}  // namespace underlay
