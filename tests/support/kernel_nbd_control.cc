// Runs what io/kernel_nbd and io/nbd_dial offer from a command line, for the tests in a real
// kernel.
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <string>
#include <vector>

#include "io/block_device_holders.h"
#include "io/kernel_nbd.h"
#include "io/nbd_dial.h"

namespace underlay {
namespace {

using Words = std::vector<std::string>;

constexpr std::chrono::seconds kDialLimit{5};
constexpr const char* kUsage =
    "usage: kernel_nbd_control dial MILLISECONDS URI\n"
    "       kernel_nbd_control connect INDEX|any BACKEND RECOVERY_SECONDS DEAD_SECONDS URI...\n"
    "       kernel_nbd_control reconfigure INDEX BACKEND URI...\n"
    "       kernel_nbd_control disconnect INDEX [BACKEND]\n"
    "       kernel_nbd_control holders INDEX\n"
    "       kernel_nbd_control list\n"
    "       kernel_nbd_control events COUNT SECONDS";

unsigned number(const std::string& word) { return static_cast<unsigned>(std::stoul(word)); }

Result<std::vector<DialedExport>> dial_all(const Words& uris, size_t first) {
  std::vector<DialedExport> dialed;
  for (size_t i = first; i < uris.size(); ++i) {
    dialed.push_back(TRY(dial_nbd(uris[i], kDialLimit)));
  }
  return dialed;
}

std::vector<int> sockets_of(const std::vector<DialedExport>& dialed) {
  std::vector<int> sockets;
  for (const DialedExport& one : dialed) sockets.push_back(one.socket.get());
  return sockets;
}

Result<void> connect(KernelNbd& kernel, const Words& words) {
  const auto dialed = TRY(dial_all(words, 5));
  KernelNbdConfig config;
  if (words[1] != "any") config.index = number(words[1]);
  config.backend = words[2];
  config.recovery_timeout = std::chrono::seconds(number(words[3]));
  config.dead_timeout = std::chrono::seconds(number(words[4]));
  config.size_bytes = dialed.at(0).size_bytes;
  config.transmission_flags = dialed.at(0).transmission_flags;
  fmt::print("{}\n", TRY(kernel.connect(config, sockets_of(dialed))));
  return {};
}

// Says what the export is like, and then its first 512 bytes: they come over the bare socket, as
// they do for the kernel.
Result<void> dial(unsigned milliseconds, const std::string& uri) {
  const DialedExport dialed = TRY(dial_nbd(uri, std::chrono::milliseconds(milliseconds)));
  fmt::print("size {} flags {:#x} block {}\n", dialed.size_bytes, dialed.transmission_flags,
             dialed.min_block);
  std::fflush(stdout);
  constexpr std::array<unsigned char, 28> kRead = {0x25, 0x60, 0x95, 0x13, 0,   0,   0, 0, 'c', 'o',
                                                   'o',  'k',  'i',  'e',  '0', '1', 0, 0, 0,   0,
                                                   0,    0,    0,    0,    0,   0,   2, 0};
  constexpr std::array<unsigned char, 16> kSimpleReply = {
      0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 'c', 'o', 'o', 'k', 'i', 'e', '0', '1'};
  const int fd = dialed.socket.get();
  std::array<unsigned char, 16 + 512> reply{};
  if (::send(fd, kRead.data(), kRead.size(), MSG_NOSIGNAL) != std::ssize(kRead) ||
      ::recv(fd, reply.data(), reply.size(), MSG_WAITALL) != std::ssize(reply) ||
      !std::equal(kSimpleReply.begin(), kSimpleReply.end(), reply.begin())) {
    return fail(ErrorKind::kIo, "no simple reply to a read");
  }
  return std::fwrite(reply.data() + 16, 512, 1, stdout) == 1 ? Result<void>()
                                                             : fail(ErrorKind::kIo, "stdout");
}

Result<void> list() {
  for (const KernelNbdDevice& device : TRY(connected_kernel_nbd())) {
    fmt::print("{} {} {} {} {}\n", device.index, device.path, device.backend, device.size_bytes,
               device.read_only ? "ro" : "rw");
  }
  return {};
}

// Says "listening", and then the index of each device that loses a connection.
Result<void> events(unsigned count, unsigned seconds) {
  KernelNbdEvents heard = TRY(KernelNbdEvents::open());
  fmt::print("listening\n");
  std::fflush(stdout);
  while (count > 0) {
    pollfd poll_fd{.fd = heard.fd(), .events = POLLIN, .revents = 0};
    if (::poll(&poll_fd, 1, static_cast<int>(seconds) * 1000) != 1) {
      return fail(ErrorKind::kIo, "no event within {} s", seconds);
    }
    for (const unsigned index : TRY(heard.take())) {
      fmt::print("lost {}\n", index);
      std::fflush(stdout);
      if (count > 0) --count;
    }
  }
  return {};
}

Result<void> command(const Words& words) {
  if (words.size() == 1 && words[0] == "list") return list();
  if (words.size() == 3 && words[0] == "events") return events(number(words[1]), number(words[2]));
  if (words.size() == 2 && words[0] == "holders") {
    for (const std::string& holder : TRY(block_device_holders(kernel_nbd_path(number(words[1]))))) {
      fmt::print("{}\n", holder);
    }
    return {};
  }
  if (words.size() == 3 && words[0] == "dial") return dial(number(words[1]), words[2]);
  KernelNbd kernel = TRY(KernelNbd::open());
  if (words.size() > 5 && words[0] == "connect") return connect(kernel, words);
  if (words.size() > 3 && words[0] == "reconfigure") {
    const auto dialed = TRY(dial_all(words, 3));
    return kernel.reconfigure(number(words[1]), words[2], sockets_of(dialed));
  }
  if ((words.size() == 2 || words.size() == 3) && words[0] == "disconnect") {
    return kernel.disconnect(number(words[1]),
                             words.size() == 3 ? std::optional(words[2]) : std::nullopt);
  }
  return fail(ErrorKind::kUsage, "{}", kUsage);
}

}  // namespace
}  // namespace underlay

int main(int argc, char** argv) {
  try {
    const auto done = underlay::command({argv + 1, argv + argc});
    if (done) return EXIT_SUCCESS;
    fmt::print(stderr, "{}\n", done.error().to_string());
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
  }
  return EXIT_FAILURE;
}
