#include "formats/vmdk/vmdk_stream_writer.h"

#include <algorithm>
#include <array>
#include <limits>

#include "formats/vmdk/vmdk_write_head.h"
#include "formats/writing/compressor.h"
#include "formats/writing/content_id.h"
#include "io/store_le.h"

namespace underlay {
namespace {

constexpr uint64_t kGrain = kVmdkWrittenGrainBytes;
constexpr uint64_t kOverheadSectors = 128;
constexpr size_t kLengthBytes = 4;
// More than what a stream may be longer than its grain.
constexpr size_t kMostStored = kGrain + 1024;

enum class Marker : uint32_t {
  kGrainTable = 1,
  kGrainDirectory = 2,
  kFooter = kVmdkLastMarkerType
};

class StreamVmdkWriter final : public ImageWriter {
 public:
  StreamVmdkWriter(const DiskToWrite& disk, const VmdkToWrite& image, Sink& sink)
      : disk_(disk),
        image_(image),
        sink_(sink),
        directory_(div_round_up(disk.size, kVmdkWrittenTableSpan)) {}

  bool is_sequential() const override { return true; }
  uint64_t unit() const override { return kGrain; }

  // For each grain the length of its stream, 0 when it is zeros. Behind them, the streams.
  Result<void> prepare(ByteSpan bytes, std::vector<std::byte>& prepared) const override {
    const size_t grains = div_round_up(bytes.size(), kGrain);
    prepared.assign(grains * kLengthBytes, std::byte{});
    for (size_t i = 0; i < grains; ++i) {
      const ByteSpan rest = bytes.subspan(i * kGrain);
      const ByteSpan grain = rest.first(std::min<size_t>(rest.size(), kGrain));
      if (disk_.zero_block != 0 && is_zero(grain)) continue;
      store_le<uint32_t>(prepared, i * kLengthBytes, TRY(pack(grain, prepared)));
    }
    return {};
  }

  Result<void> write(uint64_t offset, ByteSpan bytes, ByteSpan prepared) override {
    const size_t grains = div_round_up(bytes.size(), kGrain);
    ByteSpan streams = prepared.subspan(grains * kLengthBytes);
    for (size_t i = 0; i < grains; ++i) {
      const uint32_t length = load_le<uint32_t>(prepared, i * kLengthBytes);
      if (length == 0) continue;
      TRY(add_grain(offset / kGrain + i, streams.first(length)));
      streams = streams.subspan(length);
    }
    return flush();
  }

  Result<void> finish() override {
    TRY(close_table());
    begin_if_empty();
    const uint64_t directory_sectors = vmdk_sectors(directory_.size() * 4);
    VmdkPlaces places{.overhead = kOverheadSectors};
    add_marker(directory_sectors, Marker::kGrainDirectory);
    places.directory = end() / kVmdkSectorBytes;
    add_entries(directory_, directory_sectors);
    add_marker(1, Marker::kFooter);
    add(vmdk_header_bytes(disk_.size, places, /*stream_optimized=*/true));
    pending_.resize(pending_.size() + kVmdkSectorBytes);  // the end-of-stream marker
    TRY(flush());
    return sink_.finish(written_);
  }

 private:
  static Result<uint32_t> pack(ByteSpan grain, std::vector<std::byte>& out) {
    std::vector<std::byte> whole;
    if (grain.size() < kGrain) {
      whole.assign(grain.begin(), grain.end());
      whole.resize(kGrain);
      grain = whole;
    }
    const size_t length = TRY(compress(Codec::kZlib, grain, kMostStored, out));
    if (length == 0)
      return fail(ErrorKind::kLimit, "a grain does not fit into {} bytes", kMostStored);
    return static_cast<uint32_t>(length);
  }

  Result<void> add_grain(uint64_t grain, ByteSpan stream) {
    const uint64_t table = grain / kVmdkGtesPerGt;
    if (table_.empty() || table != number_) {
      TRY(close_table());
      number_ = table;
      table_.assign(kVmdkGtesPerGt, 0);
    }
    begin_if_empty();
    table_[grain % kVmdkGtesPerGt] = TRY(sector_of(end()));
    const size_t at = pending_.size();
    pending_.resize(at + kVmdkGrainMarkerBytes);
    store_le<uint64_t>(pending_, at, grain * kVmdkWrittenGrainSectors);
    store_le<uint32_t>(pending_, at + 8, static_cast<uint32_t>(stream.size()));
    add(stream);
    pending_.resize(at + vmdk_sectors(kVmdkGrainMarkerBytes + stream.size()) * kVmdkSectorBytes);
    return {};
  }

  Result<void> close_table() {
    if (table_.empty()) return {};
    add_marker(kVmdkGrainTableSectors, Marker::kGrainTable);
    directory_[number_] = TRY(sector_of(end()));
    add_entries(table_, kVmdkGrainTableSectors);
    return {};
  }

  static Result<uint32_t> sector_of(uint64_t offset) {
    const uint64_t sector = offset / kVmdkSectorBytes;
    if (sector <= std::numeric_limits<uint32_t>::max()) return static_cast<uint32_t>(sector);
    return fail(ErrorKind::kLimit, "a vmdk of one file has room for 2 TiB: say another format");
  }

  // The identity is known before the content is: it comes from the size alone.
  void begin_if_empty() {
    if (end() != 0) return;
    add(vmdk_header_bytes(disk_.size, {.overhead = kOverheadSectors}, /*stream_optimized=*/true));
    const ContentId id("vmdk stream", disk_.size);
    add(vmdk_descriptor_bytes(disk_.size, image_, vmdk_cid(id.value())));
    pending_.resize(kOverheadSectors * kVmdkSectorBytes);
  }

  void add(ByteSpan bytes) { pending_.insert(pending_.end(), bytes.begin(), bytes.end()); }

  void add_marker(uint64_t sectors, Marker type) {
    const size_t at = pending_.size();
    pending_.resize(at + kVmdkSectorBytes);
    store_le<uint64_t>(pending_, at, sectors);
    store_le<uint32_t>(pending_, at + 12, static_cast<uint32_t>(type));
  }

  void add_entries(const std::vector<uint32_t>& entries, uint64_t sectors) {
    const size_t at = pending_.size();
    pending_.resize(at + sectors * kVmdkSectorBytes);
    for (size_t i = 0; i < entries.size(); ++i)
      store_le<uint32_t>(pending_, at + i * 4, entries[i]);
  }

  // Byte in the file where what is added next goes.
  uint64_t end() const { return written_ + pending_.size(); }

  Result<void> flush() {
    if (pending_.empty()) return {};
    TRY(sink_.write(written_, pending_));
    written_ += pending_.size();
    pending_.clear();
    return {};
  }

  const DiskToWrite disk_;
  const VmdkToWrite image_;
  Sink& sink_;
  std::vector<std::byte> pending_;  // whole sectors, of one part at most
  uint64_t written_ = 0;
  std::vector<uint32_t> directory_;  // sectors of the grain tables
  uint64_t number_ = 0;              // of the grain table that is being filled
  std::vector<uint32_t> table_;      // sectors of grains; empty: none yet
};

}  // namespace

std::unique_ptr<ImageWriter> write_vmdk_stream(const DiskToWrite& disk, const VmdkToWrite& image,
                                               Sink& sink) {
  return std::make_unique<StreamVmdkWriter>(disk, image, sink);
}

}  // namespace underlay
