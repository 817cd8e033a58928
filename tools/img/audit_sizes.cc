#include "tools/img/audit_sizes.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "tools/img/qemu_size.h"

namespace underlay::img {
namespace {

// A larger disk is rarely a template, and whoever copies it, or makes it a file of its own, may run
// out of space.
constexpr uint64_t kHugeDisk = 1ull << 40;
// Of what the file takes on its disk.
constexpr uint64_t kBombRatio = 1000;
// What compresses better than that is zeros; deflate cannot do better at all.
constexpr uint64_t kPackedRatio = 1000;
constexpr uint64_t kHugeUnpacked = 1ull << 40;
constexpr size_t kManySnapshots = 1000;

bool is_above(uint64_t bytes, uint64_t part, uint64_t ratio) { return bytes / ratio > part; }

// Bytes that the file takes on its disk; of what is no file, its size.
uint64_t taken_bytes(const Source& file) {
  struct stat status;
  const auto fd = file.fd();
  if (!fd || ::fstat(*fd, &status) != 0 || !S_ISREG(status.st_mode)) return file.size();
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

}  // namespace

void audit_sizes(const LoneImage& image, const ImageFacts& facts, AuditReport& report) {
  const Source& unpacked = *image.file.source;
  const Source& file = unpacked.file();
  const uint64_t taken = taken_bytes(file);
  if (facts.virtual_size > kHugeDisk && is_above(facts.virtual_size, taken, kBombRatio)) {
    report.warn("size-huge", fmt::format("the disk has {}, of which the file holds {} at most: "
                                         "copied as raw it fills a disk",
                                         qemu_size(facts.virtual_size), qemu_size(taken)));
  }
  if (file.size() > kHugeUnpacked && is_above(file.size(), taken, kBombRatio)) {
    report.warn("size-sparse",
                fmt::format("the file has {}, but takes {}: copied by a program that "
                            "does not know holes it fills a disk",
                            qemu_size(file.size()), qemu_size(taken)));
  }
  if (&file != &unpacked && !image.files && unpacked.size() > file.size() &&
      is_above(unpacked.size(), file.size(), kPackedRatio)) {
    report.warn("size-packed", fmt::format("{} unpack to {}: more than a thousand times as much",
                                           qemu_size(file.size()), qemu_size(unpacked.size())));
  }
  if (facts.snapshots.size() > kManySnapshots) {
    report.warn("many-snapshots", fmt::format("it has {} snapshots", facts.snapshots.size()));
  }
}

}  // namespace underlay::img
