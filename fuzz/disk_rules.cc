#include "fuzz/disk_rules.h"

#include <algorithm>
#include <vector>

#include "fuzz/rules.h"

namespace underlay {
namespace {

using Kind = Extent::Kind;

// Enough to reach every kind of table entry that a small file can hold.
constexpr int kMaxSteps = 512;
constexpr uint64_t kSkipAfterError = 64 << 10;
constexpr uint64_t kMaxRead = 16 << 10;

class DiskRules {
 public:
  explicit DiskRules(const Disk& disk) : disk_(disk) {}

  std::optional<Error> check() {
    const Reader& top = *disk_.layers().front().reader;
    require(disk_.check_unchanged().has_value() && disk_.find_replaced() == nullptr,
            "memory does not change");
    for (const Layer& layer : disk_.layers()) check_reader(*layer.reader);
    uint64_t offset = 0;
    for (int step = 0; step < kMaxSteps && offset < disk_.size(); ++step) {
      offset += check_part(offset);
    }
    if (disk_.size() == 0) return first_failure_;
    if (top.size() > 0) check_map(top, top.size() - 1);
    check_part(disk_.size() - std::min(disk_.size(), kMaxRead));
    return first_failure_;
  }

 private:
  void failed(const Error& error) {
    check_error(error);
    if (!first_failure_) first_failure_ = error;
  }

  static void check_loaded(const Extent& extent, uint64_t offset) {
    require(extent.cluster_length > 0 && extent.cluster_start <= offset &&
                range_within(offset - extent.cluster_start, extent.length, extent.cluster_length),
            "an extent that is loaded lies in its cluster");
  }

  static void check_extent(const Reader& reader, const Extent& extent, uint64_t offset,
                           uint64_t asked) {
    require(extent.length > 0 && extent.length <= asked, "0 < extent.length <= length");
    if (extent.kind == Kind::kZero || extent.kind == Kind::kParent) return;
    const auto sources = reader.sources();
    require(std::find(sources.begin(), sources.end(), extent.source) != sources.end(),
            "an extent's source is one of the reader's");
    const uint64_t stored = extent.kind == Kind::kData ? extent.length : 1;
    require(range_within(extent.source_offset, stored, extent.source->size()),
            "stored bytes lie within their file");
    if (extent.is_loaded()) check_loaded(extent, offset);
  }

  // What may be answered without waiting must be what waiting gives.
  static void check_same(const Result<Extent>& now, const Result<Extent>& later) {
    if (!now && now.error().kind == ErrorKind::kWouldBlock) return;
    require(now.has_value() == later.has_value(), "kReadNow and kRead agree on failure");
    if (!now) return;
    require(now->kind == later->kind, "kReadNow and kRead agree on the kind");
    if (now->kind == Kind::kData || now->is_loaded()) {
      require(now->source == later->source && now->source_offset == later->source_offset,
              "kReadNow and kRead agree on the place");
    }
  }

  // Maps `offset` for every purpose; the bytes to go on by.
  uint64_t check_map(const Reader& reader, uint64_t offset) {
    const uint64_t asked = reader.size() - offset;
    uint64_t step = std::min(asked, kSkipAfterError);
    const auto now = reader.map(offset, asked, MapFor::kReadNow);
    const auto later = reader.map(offset, asked, MapFor::kRead);
    check_same(now, later);
    for (const auto& answer : {later, reader.map(offset, asked, MapFor::kStatus)}) {
      if (answer) {
        check_extent(reader, *answer, offset, asked);
        step = answer->length;
      } else {
        require(answer.error().kind != ErrorKind::kWouldBlock, "only kReadNow would block");
        failed(answer.error());
      }
    }
    return step;
  }

  void check_reader(const Reader& reader) {
    uint64_t offset = 0;
    for (int step = 0; step < kMaxSteps && offset < reader.size(); ++step) {
      offset += check_map(reader, offset);
    }
  }

  // What is in memory now must be what was read.
  void check_memory(uint64_t offset, ByteSpan bytes) const {
    std::vector<std::byte> again(bytes.size(), std::byte{0x5a});
    const size_t known = disk_.read_from_memory(offset, again);
    require(known <= again.size(), "no more is read than was asked for");
    require(std::equal(again.begin(), again.begin() + static_cast<std::ptrdiff_t>(known),
                       bytes.begin()),
            "memory has what was read");
  }

  // With holes in place of zeros, the bytes are the same.
  void check_holes(uint64_t offset, ByteSpan bytes) const {
    std::vector<std::byte> again(bytes.size(), std::byte{0x5a});
    ZeroRuns zeros;
    require(disk_.read(offset, again, &zeros).has_value(), "what was read can be read again");
    for (const ZeroRuns::Run& run : zeros) {
      require(range_within(run.offset, run.length, again.size()), "a hole lies within the read");
      std::fill_n(again.begin() + static_cast<std::ptrdiff_t>(run.offset), run.length,
                  std::byte{0});
    }
    require(std::equal(again.begin(), again.end(), bytes.begin()), "holes stand for zeros");
  }

  // Reads a piece at `offset`; the bytes of its first extent.
  uint64_t check_part(uint64_t offset) {
    const uint64_t left = disk_.size() - offset;
    const auto extent = disk_.map(offset, left, MapFor::kRead);
    if (extent) require(extent->length > 0 && extent->length <= left, "a disk's extent has bytes");
    if (!extent) failed(extent.error());
    std::vector<std::byte> bytes(std::min(kMaxRead, left), std::byte{0xa5});
    (void)disk_.prefetch(offset, bytes.size());
    (void)disk_.unpack(offset, bytes.size());
    const auto read = disk_.read(offset, bytes);
    if (!read) {
      check_error(read.error());
      const bool all_stored =
          extent && extent->kind == Kind::kData && extent->length >= bytes.size();
      if (all_stored) failed(read.error());
      return extent ? extent->length : std::min(left, kSkipAfterError);
    }
    require(extent.has_value(), "what can be read can be mapped");
    check_memory(offset, bytes);
    check_holes(offset, bytes);
    if (extent->kind == Kind::kZero) {
      const uint64_t zeros = std::min<uint64_t>(extent->length, bytes.size());
      require(std::all_of(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(zeros),
                          [](std::byte b) { return b == std::byte{0}; }),
              "zeros read as zeros");
    }
    return extent->length;
  }

  const Disk& disk_;
  std::optional<Error> first_failure_;
};

}  // namespace

std::optional<Error> check_disk(const Disk& disk) { return DiskRules(disk).check(); }

}  // namespace underlay
