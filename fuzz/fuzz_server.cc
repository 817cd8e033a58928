// Any bytes as what a client says to the whole server: its rings, sessions and workers, over a real
// socket. The server must answer, and end when its client has ended. The first byte of the input is
// passed over, so that inputs of the target `nbd` are inputs of this one. With AFL++, see
// README.md.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <csignal>
#include <thread>

#include "formats/open_chain.h"
#include "fuzz/rules.h"
#include "io/memory_source.h"
#include "server/server.h"

namespace underlay {
namespace {

constexpr size_t kDiskBytes = 1 << 20;
constexpr int kAnswerMs = 8'000;  // less than a fuzzer's time limit, more than any answer takes

// One disk for all inputs: data, then zeros.
struct Served {
  Confinement files;
  Caches caches;
  Log log{"fuzz-server", false};
  ExportCatalog catalog{{}, files, caches, log};
  CurrentCredentials credentials;
  ServiceManager manager;

  Served() {
    std::vector<std::byte> contents(kDiskBytes);
    for (size_t i = 0; i < kDiskBytes / 2; ++i) contents[i] = static_cast<std::byte>(i / 512);
    OpenOptions options;
    options.format = "raw";
    auto opened = open_disk(OpenedFile{std::make_shared<MemorySource>(contents, "disk"), "/disk"},
                            options, files, caches);
    require(opened.has_value(), "the disk opens");
    require(catalog.add(std::make_shared<Export>("", "", opened->disk)).has_value(),
            "it is exported");
  }
};

// Says all that fits and hears all that comes, until the server has closed the connection. What is
// said does not wait for what is heard: a server may stop listening to who does not.
void converse(UniqueFd socket, ByteSpan said) {
  ::fcntl(socket.get(), F_SETFL, O_NONBLOCK);
  std::array<std::byte, 64 << 10> heard{};
  while (true) {
    const bool more = !said.empty();
    pollfd wait{.fd = socket.get(),
                .events = static_cast<short>(more ? POLLIN | POLLOUT : POLLIN),
                .revents = 0};
    require(::poll(&wait, 1, kAnswerMs) > 0, "the server goes on");
    if ((wait.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
      const ssize_t got = ::recv(socket.get(), heard.data(), heard.size(), 0);
      if (got == 0 || (got < 0 && errno != EAGAIN)) return;
    }
    if (more && (wait.revents & POLLOUT) != 0) {
      const ssize_t sent = ::send(socket.get(), said.data(), said.size(), MSG_NOSIGNAL);
      if (sent > 0) said = said.subspan(static_cast<size_t>(sent));
      if (said.empty()) ::shutdown(socket.get(), SHUT_WR);
    }
  }
}

void run(ByteSpan input) {
  static Served served;
  if (input.size() < 2) return;
  std::array<int, 2> ends{};
  require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0, "a socket pair");
  // Else it would wait for another client after one that did not finish its handshake.
  auto server = Server::create({.persistent = true}, served.catalog, served.credentials, served.log,
                               served.manager);
  require(server.has_value(), "a server");
  (*server)->adopt(UniqueFd(ends[0]));
  // To this thread alone: others of a fuzzer's take signals for themselves.
  std::thread client([socket = UniqueFd(ends[1]), input, self = ::pthread_self()]() mutable {
    converse(std::move(socket), input.subspan(1));
    ::pthread_kill(self, SIGTERM);
  });
  (*server)->run();
  client.join();
}

}  // namespace
}  // namespace underlay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  underlay::run(std::as_bytes(std::span(data, size)));
  return 0;
}
