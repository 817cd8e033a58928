#include "formats/vhdx/vhdx_check.h"

#include <algorithm>

#include "formats/inspection/block_places.h"
#include "formats/inspection/check_progress.h"
#include "formats/inspection/table_reader.h"
#include "formats/vhdx/vhdx_blocks.h"
#include "formats/vhdx/vhdx_structures.h"

namespace underlay {
namespace vhdx {
namespace {

using Content = BatRules::Content;

// The BAT and the blocks of an image whose BAT lies in the file.
class Check {
 public:
  // `content`: the replayed file.
  Check(const Source& content, const Structures& found, CheckReport& report)
      : content_(content),
        geometry_(found.geometry),
        bat_{.offset = found.regions.bat.offset, .length = found.geometry.entries() * 8},
        rules_(geometry_, found.regions.bat, found.places, content.size(), content.name()),
        report_(report),
        progress_(report) {
    for (const FileRange& place : found.places) {
      if (place.offset >= content.size()) continue;
      structures_.push_back({.offset = place.offset,
                             .length = std::min(place.length, content.size() - place.offset)});
    }
  }

  Result<void> run() {
    report_.totals.total = geometry_.blocks();
    TRY(check_entries());
    if (const auto finding = too_many_to_order(stored_)) {
      report_.add(*finding);
    } else {
      TRY(check_places());
      add_free(covered_, content_.size());
      report_.totals.image_end_offset = std::max(covered_, end_of_structures());
    }
    tell_what_was_counted();
    return {};
  }

 private:
  // What an entry of the BAT is for.
  struct Entry {
    uint64_t number = 0;
    BatEntry value{0};
    bool is_bitmap = false;  // of the sector bitmap block of its chunk
    uint64_t block = 0;      // of a payload block; the first of the chunk's
  };

  Entry entry_of(uint64_t number, BatEntry value) const {
    const uint64_t ratio = geometry_.chunk_ratio();
    const uint64_t chunk = number / (ratio + 1);
    const uint64_t in_chunk = number % (ratio + 1);
    const bool is_bitmap = in_chunk == ratio;
    return {.number = number,
            .value = value,
            .is_bitmap = is_bitmap,
            .block = chunk * ratio + (is_bitmap ? 0 : in_chunk)};
  }

  // Calls use(entry) for all entries but those of 0, which say nothing, unless that of a sector
  // bitmap block is waited for.
  template <class Use>
  Result<void> for_each_entry(CheckReport* report, const Use& use) {
    return for_each_readable_piece(content_, bat_, report,
                                   [&](uint64_t at, ByteSpan bytes) -> Result<void> {
                                     const uint64_t first = (at - bat_.offset) / 8;
                                     for (size_t i = 0; i < bytes.size() / 8; ++i) {
                                       const auto value = load_le<uint64_t>(bytes, i * 8);
                                       if (value != 0 || has_partial_)
                                         use(entry_of(first + i, BatEntry(value)));
                                     }
                                     return progress_.did(bytes.size() / 8);
                                   });
  }

  Result<void> check_entries() {
    const uint64_t failures = report_.count(Finding::Kind::kFailure);
    progress_.expect(geometry_.entries() * 2);
    TRY(for_each_entry(&report_, [&](const Entry& entry) {
      if (entry.is_bitmap) {
        check_bitmap(entry);
      } else if (entry.block < geometry_.blocks()) {
        check_payload(entry);
      } else if (entry.value.is_stored()) {
        ++behind_disk_;
      }
    }));
    bat_is_known_ = report_.count(Finding::Kind::kFailure) == failures;
    progress_.expect(geometry_.entries() * (stored_ / kBlocksInAPass));
    return {};
  }

  void check_payload(const Entry& entry) {
    if (entry.value.state == BatEntry::kPartiallyPresent) has_partial_ = entry.block;
    const bool is_sound = rules_.is_payload_sound(entry.block, entry.value);
    if (!is_sound) {
      report_.add(Finding::Kind::kCorruption,
                  [&] { return finding_of(*rules_.payload_defect(entry.block, entry.value)); });
    }
    if (!entry.value.is_stored()) return;
    CheckTotals& totals = report_.totals;
    if (totals.allocated > 0 && entry.value.file_offset != expected_) ++totals.fragmented;
    ++totals.allocated;
    if (!is_sound) return;
    ++stored_;
    expected_ = entry.value.file_offset + geometry_.block_size;
  }

  // Comes behind the payload blocks of its chunk.
  void check_bitmap(const Entry& entry) {
    const auto needed_by = std::exchange(has_partial_, std::nullopt);
    const uint8_t state = entry.value.state;
    if (!geometry_.has_parent) {
      unexpected_bitmaps_ += state != BatEntry::kNotPresent ? 1 : 0;
      return;
    }
    if (state == BatEntry::kFullyPresent) {
      const auto defect =
          rules_.misplacement("sector bitmap", entry.number, entry.value, kSectorBitmapBytes);
      if (defect) report_.add(finding_of(*defect));
      if (!defect) ++stored_;
    } else if (needed_by) {
      report_.add(finding_of(*rules_.bitmap_defect(entry.number, entry.value, *needed_by)));
    } else if (state != BatEntry::kNotPresent) {
      report_.add({.kind = Finding::Kind::kCorruption,
                   .code = "bitmap-state-wrong",
                   .message = fmt::format("BAT entry {} has the state {}, which a sector bitmap "
                                          "block cannot have",
                                          entry.number, unsigned{state}),
                   .offset = rules_.entry_offset(entry.number)});
    }
  }

  // Does an entry say where a block lies, and may it lie there?
  bool has_place(const Entry& entry) const {
    if (entry.is_bitmap) {
      return geometry_.has_parent && entry.value.state == BatEntry::kFullyPresent &&
             rules_.is_well_placed(entry.value, kSectorBitmapBytes);
    }
    return entry.value.is_stored() && entry.block < geometry_.blocks() &&
           rules_.is_payload_sound(entry.block, entry.value);
  }

  Result<void> check_places() {
    const auto tell = [&](const TellBlock& tell_block) {
      return for_each_entry(nullptr, [&](const Entry& entry) {
        if (!has_place(entry)) return;
        tell_block({.place = entry.value.file_offset, .entry = entry.number});
      });
    };
    return in_ascending_order(tell, [&](const BlockPlace& block) -> Result<void> {
      const Entry entry = entry_of(block.entry, BatEntry(0));
      if (last_ && block.place < last_end_) {
        tell_overlap(block);
      } else {
        add_free(covered_, block.place);
      }
      const uint64_t used = entry.is_bitmap ? kSectorBitmapBytes : rules_.used_bytes(entry.block);
      const uint64_t whole = entry.is_bitmap ? kSectorBitmapBytes : geometry_.block_size;
      last_ = block;
      last_end_ = std::max(last_end_, block.place + used);
      covered_ = std::max(covered_, std::min(block.place + whole, content_.size()));
      return {};
    });
  }

  void tell_overlap(const BlockPlace& block) {
    const bool same = last_->place == block.place;
    report_.add(Finding::Kind::kCorruption, [&] {
      return Finding{
          .kind = Finding::Kind::kCorruption,
          .code = same ? "block-twice" : "blocks-overlap",
          .message = fmt::format("BAT entries {} and {} claim the same bytes, for blocks "
                                 "at byte {} and at byte {}",
                                 last_->entry, block.entry, last_->place, block.place),
          .offset = rules_.entry_offset(block.entry)};
    });
  }

  // Of the bytes from `begin` to `end`, which no block takes, counts those that no structure takes.
  void add_free(uint64_t begin, uint64_t end) {
    for (const FileRange& structure : structures_) {
      if (begin < structure.offset) free_bytes_ += in_range(begin, std::min(end, structure.offset));
      begin = std::max(begin, structure.offset + structure.length);
    }
    free_bytes_ += in_range(begin, end);
  }
  static uint64_t in_range(uint64_t begin, uint64_t end) { return end > begin ? end - begin : 0; }

  uint64_t end_of_structures() const {
    uint64_t end = kHeaderSectionBytes;
    for (const FileRange& structure : structures_) {
      end = std::max(end, structure.offset + structure.length);
    }
    return end;
  }

  void notice(std::string code, std::string message) {
    report_.add(
        {.kind = Finding::Kind::kNotice, .code = std::move(code), .message = std::move(message)});
  }

  void tell_what_was_counted() {
    if (behind_disk_ > 0) {
      notice("blocks-behind-disk",
             fmt::format("{} entries of the BAT behind the disk's {} blocks have stored blocks",
                         behind_disk_, geometry_.blocks()));
    }
    if (unexpected_bitmaps_ > 0) {
      notice(
          "bitmap-unexpected",
          fmt::format("{} entries of the BAT say that there are sector bitmap blocks, which only "
                      "differencing images have",
                      unexpected_bitmaps_));
    }
    if (bat_is_known_ && free_bytes_ >= geometry_.block_size) {
      notice("free-space", fmt::format("{} bytes of the file, as many as {} blocks have, are free",
                                       free_bytes_, free_bytes_ / geometry_.block_size));
    }
  }

  const Source& content_;
  const Geometry& geometry_;
  FileRange bat_;                      // as far as the disk needs it
  std::vector<FileRange> structures_;  // ascending, as far as they lie in the file
  BatRules rules_;
  CheckReport& report_;
  CheckProgress progress_;
  bool bat_is_known_ = true;             // all of it could be read
  std::optional<uint64_t> has_partial_;  // a block of this chunk that needs the sector bitmap
  uint64_t expected_ = 0;                // where a block right behind the one before would lie
  uint64_t stored_ = 0;                  // blocks of both kinds
  uint64_t behind_disk_ = 0;
  uint64_t unexpected_bitmaps_ = 0;
  std::optional<BlockPlace> last_;
  uint64_t last_end_ = 0;                   // byte of the file, of what the disk needs
  uint64_t covered_ = kHeaderSectionBytes;  // byte of the file: what lies before it was looked at
  uint64_t free_bytes_ = 0;
};

}  // namespace
}  // namespace vhdx

Result<void> check_vhdx(const FileToInspect& file, CheckReport& report) {
  const vhdx::Structures found = TRY(vhdx::read_structures(file.source));
  report.add(found.defects);
  report.add(found.remarks);
  if (!found.has_bat) return {};
  return vhdx::Check(vhdx::content_of(found, *file.source), found, report).run();
}

}  // namespace underlay
