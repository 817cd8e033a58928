#include "server/limits_text.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <string_view>

#include "formats/container/unpacked_source.h"
#include "formats/open_chain.h"
#include "formats/reader.h"
#include "io/http/http_limits.h"
#include "io/http/read_windows.h"
#include "server/limits.h"
#include "server/nbd_protocol.h"
#include "server/options.h"

namespace underlay {
namespace {

std::string bytes(uint64_t count) {
  constexpr std::array<std::string_view, 4> kUnits{"bytes", "KiB", "MiB", "GiB"};
  size_t unit = 0;
  while (count >= 1024 && count % 1024 == 0 && unit + 1 < kUnits.size()) {
    count /= 1024;
    ++unit;
  }
  return fmt::format("{} {}", count, kUnits[unit]);
}

std::string seconds(std::chrono::milliseconds time) {
  return fmt::format("{:g} s", std::chrono::duration<double>(time).count());
}

}  // namespace

std::string limits_text() {
  std::string text = "What clients and images may ask for, at most:\n";
  const auto heading = [&](std::string_view name) { text += fmt::format("\n{}:\n", name); };
  const auto line = [&](std::string_view what, const auto& limit, std::string_view beyond) {
    text += fmt::format("  {:<42}{:<12}{}\n", what, limit, beyond);
  };
  const Caches::Budget caches;

  heading("Connections");
  line("clients at the same time (-e)", limits::kConnections, "others wait");
  line("open files", limits::kOpenFiles, "within the system's hard limit (ulimit -Hn)");
  line("time for a handshake", seconds(limits::kHandshakeTime), "the connection is closed");
  line("options in a handshake", limits::kHandshakeOptions, "the connection is closed");
  line("data of an option", bytes(limits::kStoredOption), "it is refused");
  line("data of an option that is still skipped", bytes(limits::kOptionLength),
       "the connection is closed");
  line("exports that are listed", limits::kListedExports, "the list ends");

  heading("Requests");
  line("bytes of a read", bytes(nbd::kMaxPayload), "it is refused");
  line("requests of a client that wait for a disk", limits::kOperations, "its others wait");
  line("bytes in flight of a client", bytes(limits::kOperationBytes), "its others wait");
  line("unsent replies of a client", bytes(limits::kUnsentBytes), "its requests wait");
  line("encrypted bytes of a client on their way", bytes(limits::kTlsBatch), "its others wait");
  line("replies of all clients in memory", bytes(limits::kReplyMemory), "requests wait");
  line("unread replies when that is used up", seconds(limits::kUnreadTime),
       "the connection is closed");
  line("extents in a reply to block status", limits::kStatusExtents, "the client asks again");
  line("bytes that one request prefetches", bytes(limits::kPrefetchBytes), "the rest is left");
  line("tries of a read that may succeed later", unsigned{limits::kRetries},
       "EIO, or held (--on-error)");

  heading("Images");
  line("unpacked clusters in memory", bytes(caches.clusters), "--cluster-cache");
  line("tables of images in memory", bytes(caches.tables), "--table-cache");
  line("files of images on servers", bytes(Options{}.cache_size), "--cache-size");
  line("images in a chain", kMaxChainDepth, "the image is refused");
  line("dirty bitmaps of an export (-B)", limits::kDirtyBitmaps, "they are refused");
  line("block of a compressed file", bytes(kMaxPackedBlock), "the file is refused");

  heading("Images on servers");
  constexpr HttpLimits kFar;
  line("bytes of an image in memory",
       bytes(uint64_t{ReadWindows::kKept} * ReadWindows::kWindowBytes), "they are fetched anew");
  line("bytes of a request", bytes(kHttpPieceBytes), "a read is several requests");
  line("requests of a read at the same time", kHttpParallel, "its others wait");
  line("reads that wait for servers", limits::kFarReads, "others wait");
  line("tries of a request", kFar.tries, "the read fails");
  line("time for a request, with all its tries", seconds(kFar.range), "the read fails");

  heading("Control (--control)");
  line("bytes of a command", bytes(limits::kControlCommand), "it is refused");
  line("time for it, and for the answer", seconds(limits::kControlTime),
       "the connection is closed");

  heading("Ends");
  line("time for replies after SIGTERM", seconds(limits::kShutdownTime),
       "the connections are closed");
  line("time for a hand-over", seconds(limits::kHandoverTransfer), "serving goes on here");
  return text;
}

}  // namespace underlay
