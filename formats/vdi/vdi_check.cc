#include "formats/vdi/vdi_check.h"

#include <algorithm>
#include <bit>

#include "formats/inspection/block_places.h"
#include "formats/inspection/check_progress.h"
#include "formats/inspection/table_reader.h"
#include "formats/vdi/vdi_head.h"

namespace underlay {
namespace vdi {
namespace {

class Check {
 public:
  Check(const Source& source, const Header& header, CheckReport& report)
      : source_(source), header_(header), report_(report), progress_(report) {}

  Result<void> run() {
    if (!map_can_be_read()) return {};
    report_.totals.total = header_.blocks();
    TRY(check_entries());
    tell_entries_behind_disk();
    TRY(check_places());
    tell_space_behind_blocks();
    return {};
  }

 private:
  bool map_can_be_read() const {
    return std::has_single_bit(header_.block_size) &&
           range_within(header_.offset_bmap, header_.map_bytes(), source_.size());
  }

  // Calls use(block, entry) for all entries that are numbers of stored blocks.
  template <class Use>
  Result<void> for_each_stored(CheckReport* report, const Use& use) {
    const FileRange map{.offset = header_.offset_bmap, .length = header_.map_bytes()};
    return for_each_readable_piece(source_, map, report,
                                   [&](uint64_t at, ByteSpan bytes) -> Result<void> {
                                     const uint64_t first = (at - map.offset) / kEntryBytes;
                                     for (size_t i = 0; i < bytes.size() / kEntryBytes; ++i) {
                                       const auto entry = load_le<uint32_t>(bytes, i * kEntryBytes);
                                       if (is_stored(entry)) use(first + i, entry);
                                     }
                                     return progress_.did(bytes.size() / kEntryBytes);
                                   });
  }

  Result<void> check_entries() {
    const uint64_t failures = report_.count(Finding::Kind::kFailure);
    progress_.expect(uint64_t{header_.blocks_in_image} * 2);
    uint64_t expected = 0;  // the entry that would be behind the one before
    TRY(for_each_stored(&report_, [&](uint64_t block, uint32_t entry) {
      ++stored_;
      if (block >= header_.blocks()) {
        ++behind_disk_;
        return;
      }
      CheckTotals& totals = report_.totals;
      if (totals.allocated > 0 && entry != expected) ++totals.fragmented;
      ++totals.allocated;
      expected = uint64_t{entry} + 1;
      if (is_well_placed(header_, source_.size(), entry, header_.used_bytes(block))) return;
      report_.add(Finding::Kind::kCorruption, [&] { return misplaced(block, entry); });
    }));
    map_is_known_ = report_.count(Finding::Kind::kFailure) == failures;
    progress_.expect(header_.blocks_in_image * (stored_ / kBlocksInAPass));
    return {};
  }

  void tell_entries_behind_disk() {
    if (behind_disk_ == 0) return;
    report_.add({.kind = Finding::Kind::kNotice,
                 .code = "blocks-behind-disk",
                 .message = fmt::format(
                     "{} entries of the block map behind the disk's {} have stored blocks",
                     behind_disk_, header_.blocks())});
  }

  // Blocks that are stored twice, and stored ones that are no block's.
  Result<void> check_places() {
    if (const auto finding = too_many_to_order(stored_)) {
      report_.add(*finding);
      return {};
    }
    std::optional<BlockPlace> last;
    const auto tell = [&](const TellBlock& tell_block) {
      return for_each_stored(nullptr, [&](uint64_t block, uint32_t entry) {
        // Also where it is beyond the end of the file: it is named all the same.
        if (entry < header_.blocks_allocated) tell_block({.place = entry, .entry = block});
      });
    };
    TRY(in_ascending_order(tell, [&](const BlockPlace& block) -> Result<void> {
      if (last && last->place == block.place) {
        tell_twice(*last, block);
      } else {
        tell_unused(last ? last->place + 1 : 0, block.place);
      }
      last = block;
      return {};
    }));
    const uint64_t used = last ? last->place + 1 : 0;
    tell_unused(used, header_.blocks_allocated);
    report_.totals.image_end_offset = place_of(used);
    return {};
  }

  // Those behind the disk are nobody's data.
  void tell_twice(const BlockPlace& first, const BlockPlace& second) {
    if (second.entry >= header_.blocks()) return;
    report_.add(Finding::Kind::kCorruption, [&] {
      return Finding{.kind = Finding::Kind::kCorruption,
                     .code = "block-twice",
                     .message = fmt::format("block map entries {} and {} are both stored block {}",
                                            first.entry, second.entry, first.place),
                     .offset = header_.entry_offset(second.entry)};
    });
  }

  void tell_unused(uint64_t first, uint64_t end) {
    if (first >= end || !map_is_known_) return;
    const auto leak = [&] {
      return Finding{.kind = Finding::Kind::kLeak,
                     .code = "leak",
                     .message = fmt::format("stored blocks {} to {} are below blocks_allocated {}, "
                                            "but no entry of the block map names them",
                                            first, end - 1, header_.blocks_allocated),
                     .offset = place_of(first)};
    };
    report_.add(Finding::Kind::kLeak, leak, end - first);
  }

  void tell_space_behind_blocks() {
    const uint64_t end = place_of(header_.blocks_allocated);
    const uint64_t blocks = (source_.size() - end) / header_.stored_block_bytes();
    if (blocks == 0) return;
    report_.add({.kind = Finding::Kind::kNotice,
                 .code = "space-behind-blocks",
                 .message = fmt::format("behind the last of blocks_allocated {} blocks, the file "
                                        "has room for {} more",
                                        header_.blocks_allocated, blocks),
                 .offset = end});
  }

  Finding misplaced(uint64_t block, uint32_t entry) const {
    const Error why =
        place_of_block(header_, source_.size(), block, entry, header_.used_bytes(block)).error();
    const bool is_number = why.kind == ErrorKind::kTruncated;
    return finding_of(Finding::Kind::kCorruption,
                      is_number ? "block-beyond-end" : "block-beyond-allocated", why);
  }
  // The first byte of a stored block, with its extra bytes; at most the end of the file.
  uint64_t place_of(uint64_t number) const {
    const auto behind = checked_mul(number, header_.stored_block_bytes());
    if (!behind || !range_within(header_.offset_data, *behind, source_.size())) {
      return source_.size();
    }
    return header_.offset_data + *behind;
  }

  const Source& source_;
  const Header& header_;
  CheckReport& report_;
  CheckProgress progress_;
  bool map_is_known_ = true;  // all of it could be read
  uint64_t stored_ = 0;
  uint64_t behind_disk_ = 0;
};

}  // namespace
}  // namespace vdi

Result<void> check_vdi(const FileToInspect& file, CheckReport& report) {
  const vdi::HeaderBytes bytes = TRY(vdi::read_header_bytes(*file.source));
  const vdi::Header header = vdi::load_header(bytes);
  const Defects defects = vdi::header_defects(header, file.source->size());
  if (header.version != vdi::kVersion11) return defects.refusal();  // nothing else is known
  report.add(defects);
  return vdi::Check(*file.source, header, report).run();
}

}  // namespace underlay
