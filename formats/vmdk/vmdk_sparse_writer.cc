#include "formats/vmdk/vmdk_sparse_writer.h"

#include <algorithm>
#include <limits>

#include "formats/vmdk/vmdk_write_head.h"
#include "formats/writing/content_id.h"
#include "formats/writing/data_blocks.h"
#include "io/store_le.h"

namespace underlay {
namespace {

constexpr uint64_t kGrain = kVmdkWrittenGrainBytes;

class SparseVmdkWriter final : public ImageWriter {
 public:
  SparseVmdkWriter(const DiskToWrite& disk, const VmdkToWrite& image, Sink& sink)
      : disk_(disk),
        image_(image),
        sink_(sink),
        blocks_(disk.zero_block),
        joined_(sink),
        id_("vmdk", disk.size),
        table_count_(div_round_up(disk.size, kVmdkWrittenTableSpan)),
        places_(places_of(table_count_)),
        next_(places_.overhead * kVmdkSectorBytes) {}

  bool is_sequential() const override { return false; }
  uint64_t unit() const override { return blocks_.unit(); }

  Result<void> prepare(ByteSpan bytes, std::vector<std::byte>& prepared) const override {
    blocks_.mark(bytes, prepared);
    ContentId::digest(bytes, prepared);
    return {};
  }

  Result<void> write(uint64_t offset, ByteSpan bytes, ByteSpan prepared) override {
    const ByteSpan marks = blocks_.take_marks(bytes.size(), prepared);
    id_.add(offset, prepared);
    TRY(blocks_.each_run(marks, offset, bytes, kGrain,
                         [&](uint64_t at, ByteSpan run) { return store(at, run); }));
    return joined_.flush();
  }

  // The header comes last: without it, the file is no image.
  Result<void> finish() override {
    TRY(close_table());
    TRY(write_directory(places_.redundant_directory));
    TRY(write_directory(places_.directory));
    TRY(sink_.write(kVmdkDescriptorSector * kVmdkSectorBytes,
                    vmdk_descriptor_bytes(disk_.size, image_, vmdk_cid(id_.value()))));
    TRY(sink_.write(0, vmdk_header_bytes(disk_.size, places_, /*stream_optimized=*/false)));
    return sink_.finish(next_);
  }

 private:
  static uint64_t directory_sectors(uint64_t tables) { return vmdk_sectors(tables * 4); }

  static VmdkPlaces places_of(uint64_t tables) {
    const uint64_t sectors = directory_sectors(tables) + tables * kVmdkGrainTableSectors;
    VmdkPlaces places;
    places.redundant_directory = kVmdkDescriptorSector + kVmdkDescriptorSectors;
    places.directory = places.redundant_directory + sectors;
    places.overhead = div_round_up(places.directory + sectors, kVmdkWrittenGrainSectors) *
                      kVmdkWrittenGrainSectors;
    return places;
  }
  // The sector of a table that stands behind that directory.
  uint64_t table_sector(uint64_t directory, uint64_t table) const {
    return directory + directory_sectors(table_count_) + table * kVmdkGrainTableSectors;
  }

  // Within one grain.
  Result<void> store(uint64_t offset, ByteSpan bytes) {
    const uint64_t grain = TRY(place(offset / kGrain));
    return joined_.add(grain + offset % kGrain, bytes);
  }

  // Where the grain lies, or lies from now on.
  Result<uint64_t> place(uint64_t grain) {
    const uint64_t table = grain / kVmdkGtesPerGt;
    if (table_.empty() || table != number_) {
      TRY(close_table());
      number_ = table;
      table_.assign(kVmdkGrainTableSectors * kVmdkSectorBytes, std::byte{});
    }
    const size_t at = grain % kVmdkGtesPerGt * 4;
    if (const auto sector = load_le<uint32_t>(table_, at)) {
      return uint64_t{sector} * kVmdkSectorBytes;
    }
    const uint64_t sector = next_ / kVmdkSectorBytes;
    if (sector > std::numeric_limits<uint32_t>::max()) {
      return fail(ErrorKind::kLimit,
                  "a vmdk of this kind has room for 2 TiB: say -o subformat=streamOptimized, or "
                  "another format");
    }
    store_le<uint32_t>(table_, at, static_cast<uint32_t>(sector));
    next_ += kGrain;
    return next_ - kGrain;
  }

  Result<void> close_table() {
    if (table_.empty()) return {};
    for (const uint64_t directory : {places_.redundant_directory, places_.directory}) {
      TRY(sink_.write(table_sector(directory, number_) * kVmdkSectorBytes, table_));
    }
    return {};
  }

  Result<void> write_directory(uint64_t directory) {
    std::vector<std::byte> bytes(directory_sectors(table_count_) * kVmdkSectorBytes);
    for (uint64_t i = 0; i < table_count_; ++i) {
      store_le<uint32_t>(bytes, i * 4, static_cast<uint32_t>(table_sector(directory, i)));
    }
    return sink_.write(directory * kVmdkSectorBytes, bytes);
  }

  const DiskToWrite disk_;
  const VmdkToWrite image_;
  Sink& sink_;
  DataBlocks blocks_;
  JoinedWrites joined_;
  ContentId id_;
  const uint64_t table_count_;
  const VmdkPlaces places_;
  uint64_t next_;                 // byte where the next grain goes
  uint64_t number_ = 0;           // of the table that is being filled
  std::vector<std::byte> table_;  // empty: none yet
};

}  // namespace

std::unique_ptr<ImageWriter> write_vmdk_sparse(const DiskToWrite& disk, const VmdkToWrite& image,
                                               Sink& sink) {
  return std::make_unique<SparseVmdkWriter>(disk, image, sink);
}

}  // namespace underlay
