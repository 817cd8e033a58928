#include "tools/thin/attachment.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/nbd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <memory>

#include "io/block_device_holders.h"
#include "tools/thin/image_plan.h"
#include "tools/thin/server_process.h"
#include "tools/thin/shell_words.h"

namespace underlay::thin {
namespace {

constexpr uint32_t kSmallestBlock = 512;
constexpr uint32_t kLargestBlock = 4096;  // the smallest page size: the kernel's limit everywhere
constexpr size_t kFirstReadBytes = 4096;

// What the steps of an attachment hand on to each other.
struct Attaching {
  Host host;
  ImageRecord image;
  bool started = false;  // by us: a server that ran before is not ours to stop
  std::vector<DialedExport> connections;
  std::optional<unsigned> index;
};

std::string image_uri(const Host& host, const ImageRecord& image) {
  return image.is_remote() ? image.location : nbd_unix_uri(server_files(host, image.id).socket, "");
}

Result<std::vector<DialedExport>> dial(const Host& host, const ImageRecord& image) {
  const std::string uri = image_uri(host, image);
  std::vector<DialedExport> connections;
  for (unsigned i = 0; i < image.connections; ++i) {
    connections.push_back(TRY(dial_nbd(uri, kDialLimit)));
    TRY(check_export(image, connections.back()));
  }
  return connections;
}

std::vector<int> descriptors(const std::vector<DialedExport>& connections) {
  std::vector<int> sockets;
  for (const DialedExport& connection : connections) sockets.push_back(connection.socket.get());
  return sockets;
}

KernelNbdConfig kernel_config(const ImageRecord& image, const DialedExport& dialed) {
  KernelNbdConfig config;
  config.size_bytes = image.size;
  config.block_size = std::max(kSmallestBlock, dialed.min_block);
  // Nothing is ever written to an origin, also when its server would take it.
  config.transmission_flags =
      static_cast<uint16_t>(dialed.transmission_flags | NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY);
  config.recovery_timeout = std::chrono::seconds(image.recovery_timeout);
  config.dead_timeout = std::chrono::seconds(image.dead_timeout);
  config.backend = image.backend;
  return config;
}

Result<void> check_device(int fd, const ImageRecord& image) {
  uint64_t size = 0;
  int read_only = 0;
  if (::ioctl(fd, BLKGETSIZE64, &size) != 0 || ::ioctl(fd, BLKROGET, &read_only) != 0) {
    return fail_errno(errno, "cannot ask for its size and mode");
  }
  if (size != image.size) {
    return fail(ErrorKind::kMalformed, "has {} bytes, and the image {}", size, image.size);
  }
  if (read_only == 0) return fail(ErrorKind::kMalformed, "is writable, and must not be");
  return {};
}

// Past the page cache, so that it is the server that answers.
Result<void> read_first(int fd, uint64_t size) {
  alignas(kFirstReadBytes) std::array<std::byte, kFirstReadBytes> bytes;
  const size_t wanted = std::min<uint64_t>(bytes.size(), size);
  const ssize_t got = ::pread(fd, bytes.data(), wanted, 0);
  if (got < 0) return fail_errno(errno, "the first read failed");
  if (static_cast<size_t>(got) != wanted) {
    return fail(ErrorKind::kTruncated, "the first read gave {} of {} bytes", got, wanted);
  }
  return {};
}

Result<void> first_read(const std::string& path, const ImageRecord& image) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  if (!fd.valid()) return in_file(fail_errno(errno, "cannot open the new device"), path);
  if (auto checked = check_device(fd.get(), image); !checked) {
    return in_file(std::move(checked).error(), path);
  }
  if (auto read = read_first(fd.get(), image.size); !read) {
    return in_file(std::move(read).error(), path);
  }
  return {};
}

Step start_step(const std::shared_ptr<Attaching>& state) {
  Step step;
  step.name = "start-server";
  step.words = shell_words(server_command(state->host, state->image, StartMode::kAlone)) + " &";
  step.run = [state]() -> Result<void> {
    const UniqueFd lock = TRY(lock_server(state->host, state->image.id));
    if (TRY(running_server(state->host, state->image.id))) return {};
    TRY(check_unchanged(state->image));
    auto started = start_server(state->host, state->image, StartMode::kAlone);
    state->started = started.has_value();
    if (started) return {};
    // The first error counts, and it has the last line of the log that goes here.
    (void)stop_server(state->host, state->image.id);
    return Failure(std::move(started).error());
  };
  step.undo = [state]() -> Result<void> {
    if (!state->started) return {};
    const UniqueFd lock = TRY(lock_server(state->host, state->image.id));
    return stop_server(state->host, state->image.id);
  };
  return step;
}

Step dial_step(const std::shared_ptr<Attaching>& state) {
  const std::array<std::string, 2> words{"nbdinfo", image_uri(state->host, state->image)};
  Step step;
  step.name = "dial";
  step.words = shell_words(words);
  step.run = [state]() -> Result<void> {
    state->connections = TRY(dial(state->host, state->image));
    return {};
  };
  step.undo = [state]() -> Result<void> {
    state->connections.clear();
    return {};
  };
  return step;
}

Step connect_step(const std::shared_ptr<Attaching>& state) {
  const ImageRecord& image = state->image;
  Step step;
  step.name = "connect";
  step.words = fmt::format(
      "netlink nbd CONNECT: any free device, {} bytes, read-only, {} connection(s), recovery "
      "timeout {} s, dead timeout {} s, backend {}",
      image.size, image.connections, image.recovery_timeout, image.dead_timeout, image.backend);
  step.run = [state]() -> Result<void> {
    KernelNbd nbd = TRY(KernelNbd::open());
    const auto config = kernel_config(state->image, state->connections.front());
    state->index = TRY(nbd.connect(config, descriptors(state->connections)));
    state->connections.clear();  // the kernel has its own
    return {};
  };
  step.undo = [state]() -> Result<void> {
    return TRY(KernelNbd::open()).disconnect(*state->index, state->image.backend);
  };
  return step;
}

Step first_read_step(const std::shared_ptr<Attaching>& state) {
  Step step;
  step.name = "first-read";
  step.words = "dd if=/dev/nbdN of=/dev/null iflag=direct bs=4096 count=1";
  step.run = [state]() -> Result<void> {
    return first_read(fmt::format("/dev/nbd{}", *state->index), state->image);
  };
  return step;
}

Step reconnect_step(const Host& host, const ImageRecord& image, const KernelNbdDevice& device) {
  Step step;
  step.name = "reconnect";
  step.words =
      fmt::format("{} &; netlink nbd RECONFIGURE {}",
                  shell_words(server_command(host, image, StartMode::kAlone)), device.path);
  step.run = [host, image, device]() -> Result<void> {
    if (TRY(reconnect(host, image, device))) return {};
    return in_file(fail(ErrorKind::kUsage, "was detached meanwhile: try again"), device.path);
  };
  return step;
}

Failure held(const std::string& path) {
  const auto holders = block_device_holders(path);
  if (!holders) return Failure(holders.error());
  return in_file(fail(ErrorKind::kUsage,
                      "is in use by {}: end that first ('underlay-thin "
                      "deactivate' for volumes)",
                      holders->empty() ? "somebody" : join_holders(*holders)),
                 path);
}

// Claims the device, which fails while a file system or another device lies on it, so that none can
// come between the look and the disconnect.
Result<void> disconnect_unused(const KernelNbdDevice& device) {
  const UniqueFd claim(::open(device.path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
  if (!claim.valid() && errno == EBUSY) return held(device.path);
  return TRY(KernelNbd::open()).disconnect(device.index, device.backend);
}

Step disconnect_step(const Host& host, const ImageRecord& image, const KernelNbdDevice& device) {
  Step step;
  step.name = "disconnect";
  step.words = fmt::format("nbd-client -d {}", device.path);
  step.run = [host, image, device]() -> Result<void> {
    const UniqueFd lock = TRY(lock_server(host, image.id));
    TRY(disconnect_unused(device));
    if (image.is_remote()) remove_server_lock(host, image.id);
    return {};
  };
  return step;
}

Step stop_step(const Host& host, const ImageRecord& image) {
  const std::array<std::string, 3> words{"pkill", "-F", server_files(host, image.id).pid_file};
  Step step;
  step.name = "stop-server";
  step.words = shell_words(words);
  step.run = [host, id = image.id]() -> Result<void> {
    const UniqueFd lock = TRY(lock_server(host, id));
    return stop_server(host, id);
  };
  return step;
}

}  // namespace

Result<std::optional<KernelNbdDevice>> find_attachment(const ImageRecord& image) {
  std::optional<KernelNbdDevice> found;
  for (const KernelNbdDevice& device : TRY(connected_kernel_nbd())) {
    if (device.backend != image.backend) continue;
    if (found) {
      return fail(ErrorKind::kUsage,
                  "{} and {} both carry the backend identifier {}: take one down with 'nbd-client "
                  "-d'",
                  found->path, device.path, image.backend);
    }
    found = device;
  }
  return found;
}

Result<void> check_for_kernel(const std::string& location, const DialedExport& dialed) {
  if (dialed.size_bytes == 0 || dialed.size_bytes % kSmallestBlock != 0) {
    return in_file(fail(ErrorKind::kUnsupported,
                        "the export has {} bytes; a device needs a multiple of {}, at least one: "
                        "its end would be lost",
                        dialed.size_bytes, kSmallestBlock),
                   location);
  }
  if (!std::has_single_bit(dialed.min_block) || dialed.min_block > kLargestBlock) {
    return in_file(fail(ErrorKind::kUnsupported,
                        "the export's minimum block size is {} bytes, and the kernel's limit {}",
                        dialed.min_block, kLargestBlock),
                   location);
  }
  if (dialed.size_bytes % std::max(kSmallestBlock, dialed.min_block) != 0) {
    return in_file(fail(ErrorKind::kUnsupported,
                        "the export has {} bytes, no multiple of its minimum block size {}",
                        dialed.size_bytes, dialed.min_block),
                   location);
  }
  return {};
}

Result<void> check_export(const ImageRecord& image, const DialedExport& dialed) {
  TRY(check_for_kernel(image.location, dialed));
  if (dialed.size_bytes != image.size) {
    return in_file(
        fail(ErrorKind::kMalformed,
             "the server's export has {} bytes, and the record {}: the image has changed "
             "since it was attached; put the original back",
             dialed.size_bytes, image.size),
        image.location);
  }
  if (!image.is_remote() && (dialed.transmission_flags & NBD_FLAG_READ_ONLY) == 0) {
    return in_file(fail(ErrorKind::kMalformed, "its server does not say that it is read-only"),
                   image.location);
  }
  if (image.connections > 1 && (dialed.transmission_flags & NBD_FLAG_CAN_MULTI_CONN) == 0) {
    return in_file(fail(ErrorKind::kUnsupported,
                        "--connections {}: the server does not offer more than one (multi-conn): "
                        "use --connections 1",
                        image.connections),
                   image.location);
  }
  return {};
}

Result<std::vector<Step>> attach_steps(const Host& host, const ImageRecord& image) {
  std::vector<Step> steps;
  if (const auto device = TRY(find_attachment(image))) {
    const bool served = image.is_remote() || TRY(running_server(host, image.id));
    if (!served) steps.push_back(reconnect_step(host, image, *device));
    return steps;
  }
  auto state = std::make_shared<Attaching>();
  state->host = host;
  state->image = image;
  if (!image.is_remote()) steps.push_back(start_step(state));
  steps.push_back(dial_step(state));
  steps.push_back(connect_step(state));
  steps.push_back(first_read_step(state));
  return steps;
}

Result<std::vector<Step>> detach_steps(const Host& host, const ImageRecord& image) {
  std::vector<Step> steps;
  if (const auto device = TRY(find_attachment(image))) {
    if (!TRY(block_device_holders(device->path)).empty()) return held(device->path);
    steps.push_back(disconnect_step(host, image, *device));
  }
  if (!image.is_remote()) steps.push_back(stop_step(host, image));
  return steps;
}

Result<void> renew_connections(const Host& host, const ImageRecord& image,
                               const KernelNbdDevice& device) {
  const auto connections = TRY(dial(host, image));
  return TRY(KernelNbd::open()).reconfigure(device.index, image.backend, descriptors(connections));
}

Result<bool> reconnect(const Host& host, const ImageRecord& image, const KernelNbdDevice& device) {
  const UniqueFd lock = TRY(lock_server(host, image.id));
  const auto now = TRY(find_attachment(image));
  if (!now || now->index != device.index) {
    if (!TRY(running_server(host, image.id))) remove_server_lock(host, image.id);
    return false;
  }
  if (!image.is_remote() && !TRY(running_server(host, image.id))) {
    TRY(check_unchanged(image));
    TRY(start_server(host, image, StartMode::kAlone));
  }
  TRY(renew_connections(host, image, device));
  return true;
}

}  // namespace underlay::thin
