#include "formats/vhd/vhd_check.h"

#include <algorithm>

#include "formats/inspection/block_places.h"
#include "formats/inspection/check_progress.h"
#include "formats/inspection/table_reader.h"
#include "formats/vhd/vhd_sector_bits.h"
#include "formats/vhd/vhd_structures.h"

namespace underlay {
namespace vhd {
namespace {

// The BAT and the blocks of a sparse image whose structures have their places.
class Check {
 public:
  Check(const Source& source, const SparseImage& image, CheckReport& report)
      : source_(source),
        image_(image),
        report_(report),
        progress_(report),
        unmarked_(image, source),
        structures_(image.metadata),
        // In other images, the bits count.
        bits_are_ignored_(image.footer.disk_type == kTypeDynamic && !image.footer.is_by_tapdisk()) {
    std::sort(structures_.begin(), structures_.end(),
              [](const FileRange& a, const FileRange& b) { return a.offset < b.offset; });
  }

  Result<void> run() {
    report_.totals.total = image_.blocks();
    TRY(check_entries());
    if (const auto finding = too_many_to_order(stored_)) {
      report_.add(*finding);
    } else {
      TRY(check_places());
      tell_gap(covered_, image_.data_end);
      report_.totals.image_end_offset = std::max(image_.metadata_end, covered_);
    }
    tell_what_was_counted();
    return {};
  }

 private:
  // Calls use(block, entry) for the entries that are not free.
  template <class Use>
  Result<void> for_each_stored(CheckReport* report, const Use& use) {
    const FileRange bat{.offset = image_.header.table_offset,
                        .length = image_.header.table_bytes()};
    return for_each_readable_piece(source_, bat, report,
                                   [&](uint64_t at, ByteSpan bytes) -> Result<void> {
                                     const uint64_t first = (at - bat.offset) / 4;
                                     for (size_t i = 0; i < bytes.size() / 4; ++i) {
                                       const auto entry = load_be<uint32_t>(bytes, i * 4);
                                       if (entry != kFreeEntry) use(first + i, entry);
                                     }
                                     return progress_.did(bytes.size() / 4);
                                   });
  }

  Result<void> check_entries() {
    const uint64_t failures = report_.count(Finding::Kind::kFailure);
    progress_.expect(uint64_t{image_.header.max_table_entries} * 2);
    uint64_t expected = 0;  // the sector of a block right behind the one before
    TRY(for_each_stored(&report_, [&](uint64_t block, uint32_t entry) {
      if (block >= image_.blocks()) {
        ++behind_disk_;
        return;
      }
      CheckTotals& totals = report_.totals;
      if (totals.allocated > 0 && entry != expected) ++totals.fragmented;
      ++totals.allocated;
      expected = entry + image_.block_bytes() / kSectorBytes;
      if (is_well_placed(image_, block, entry)) {
        ++stored_;
        return;
      }
      report_.add(Finding::Kind::kCorruption,
                  [&] { return finding_of(*misplacement(image_, source_, block, entry)); });
    }));
    bat_is_known_ = report_.count(Finding::Kind::kFailure) == failures;
    progress_.expect(stored_ + image_.header.max_table_entries * (stored_ / kBlocksInAPass));
    return {};
  }

  // Blocks that overlap, the room between them, and what is in them.
  Result<void> check_places() {
    const auto tell = [&](const TellBlock& tell_block) {
      return for_each_stored(nullptr, [&](uint64_t block, uint32_t entry) {
        const bool is_there = block >= image_.blocks() ? entry * kSectorBytes < image_.data_end
                                                       : is_well_placed(image_, block, entry);
        if (is_there) tell_block({.place = entry, .entry = block});
      });
    };
    return in_ascending_order(tell, [&](const BlockPlace& block) -> Result<void> {
      const uint64_t start = block.place * kSectorBytes;
      const bool overlaps = last_ && start < last_end_;
      if (!overlaps) tell_gap(covered_, start);
      covered_ = std::max(covered_, std::min(start + image_.block_bytes(), image_.data_end));
      // A block behind the disk takes its room, but no more: only children may show it, where the
      // geometry cuts the disk.
      if (block.entry < image_.blocks()) {
        if (overlaps) tell_overlap(block);
        last_ = block;
        last_end_ = std::max(last_end_, start + image_.needed_bytes(block.entry));
        if (bits_are_ignored_) look_for_unmarked_data(block.entry, start);
      }
      return progress_.did(1);
    });
  }

  void tell_overlap(const BlockPlace& block) {
    const bool same = last_->place == block.place;
    report_.add(Finding::Kind::kCorruption, [&] {
      return Finding{.kind = Finding::Kind::kCorruption,
                     .code = same ? "block-twice" : "blocks-overlap",
                     .message = fmt::format("BAT entries {} and {} are sectors {} and {}: {}",
                                            last_->entry, block.entry, last_->place, block.place,
                                            same ? "the same block" : "the blocks overlap"),
                     .offset = image_.entry_offset(block.entry)};
    });
  }

  // Of the bytes from `begin` to `end`, which no block takes, those that no structure takes either.
  void tell_gap(uint64_t begin, uint64_t end) {
    if (!bat_is_known_) return;
    for (const FileRange& structure : structures_) {
      if (begin < structure.offset) tell_unused(begin, std::min(end, structure.offset));
      const uint64_t behind = structure.offset + structure.length;
      begin = std::max(begin, div_round_up(behind, kSectorBytes) * kSectorBytes);
    }
    tell_unused(begin, end);
  }

  void tell_unused(uint64_t begin, uint64_t end) {
    const uint64_t blocks = begin < end ? (end - begin) / image_.block_bytes() : 0;
    if (blocks == 0) return;
    const SourceRun run = source_.run_at(begin, end - begin);
    if (run.hole && run.length >= end - begin) return;
    const auto leak = [&] {
      return Finding{.kind = Finding::Kind::kLeak,
                     .code = "leak",
                     .message = fmt::format("bytes {} to {} have room for {} blocks, but belong to "
                                            "nothing",
                                            begin, end - 1, blocks),
                     .offset = begin};
    };
    report_.add(Finding::Kind::kLeak, leak, blocks);
  }

  void look_for_unmarked_data(uint64_t block, uint64_t start) {
    const auto found = unmarked_.is_in(block, start);
    if (!found) {
      report_.add(finding_of(Finding::Kind::kFailure, "unreadable", found.error()));
    } else if (*found) {
      ++with_unmarked_data_;
    }
  }

  void tell_what_was_counted() {
    if (behind_disk_ > 0) {
      report_.add({.kind = Finding::Kind::kNotice,
                   .code = "blocks-behind-disk",
                   .message = fmt::format("{} entries of the BAT behind the disk's {} are not free",
                                          behind_disk_, image_.blocks())});
    }
    if (with_unmarked_data_ > 0) {
      report_.add(
          {.kind = Finding::Kind::kNotice,
           .code = "sector-bits-ignored",
           .message = fmt::format(
               "{} blocks have data in sectors whose bit in the sector bitmap is not set: it is "
               "shown, as by QEMU and Windows, but tapdisk and libvhdi show zeros",
               with_unmarked_data_)});
    }
  }

  const Source& source_;
  const SparseImage& image_;
  CheckReport& report_;
  CheckProgress progress_;
  UnmarkedData unmarked_;
  std::vector<FileRange> structures_;  // ascending
  bool bits_are_ignored_;
  bool bat_is_known_ = true;  // all of it could be read
  uint64_t stored_ = 0;       // of the disk's blocks, those that are well placed
  std::optional<BlockPlace> last_;
  uint64_t last_end_ = 0;  // byte of the file, of what the disk needs
  uint64_t covered_ = 0;   // byte of the file: what lies before it was looked at
  uint64_t behind_disk_ = 0;
  uint64_t with_unmarked_data_ = 0;
};

// Of fixed images, and of those whose type is unknown.
void tell_space_behind_disk(const Structures& found, CheckReport& report) {
  if (found.found.footer.disk_type != kTypeFixed || found.size.bytes >= found.found.data_end)
    return;
  report.add({.kind = Finding::Kind::kNotice,
              .code = "space-behind-disk",
              .message = fmt::format("{} bytes lie between the disk's end and the footer",
                                     found.found.data_end - found.size.bytes),
              .offset = found.size.bytes});
}

// What find_footer() does not compare: fields of no meaning to a reader.
Result<void> compare_footers(const Source& source, const Structures& found, CheckReport& report) {
  if (!found.found.footer.is_sparse() || found.found.at == 0) return {};
  const auto length =
      static_cast<size_t>(std::min<uint64_t>(source.size() - found.found.at, kFooterBytes));
  std::vector<std::byte> copy(kFooterBytes);
  std::vector<std::byte> trailing(length);
  TRY(source.read_at(0, copy));
  TRY(source.read_at(found.found.at, trailing));
  if (examine_footer(copy).state != ExaminedFooter::State::kWhole) return {};
  const auto differs = std::mismatch(trailing.begin(), trailing.end(), copy.begin()).first;
  if (differs == trailing.end()) return {};
  report.add(
      {.kind = Finding::Kind::kNotice,
       .code = "footers-not-identical",
       .message = fmt::format("the footer at byte {} and its copy at byte 0 differ, first in "
                              "their byte {}",
                              found.found.at, differs - trailing.begin())});
  return {};
}

void check_apart(const std::vector<FileRange>& structures, CheckReport& report) {
  for (size_t i = 0; i < structures.size(); ++i) {
    for (size_t j = i + 1; j < structures.size(); ++j) {
      if (!structures[i].overlaps(structures[j])) continue;
      report.add({.kind = Finding::Kind::kCorruption,
                  .code = "structures-overlap",
                  .message = fmt::format(
                      "structures of {} bytes at byte {} and of {} bytes at byte {} overlap",
                      structures[i].length, structures[i].offset, structures[j].length,
                      structures[j].offset),
                  .offset = structures[j].offset});
    }
  }
}

}  // namespace
}  // namespace vhd

Result<void> check_vhd(const FileToInspect& file, CheckReport& report) {
  const vhd::Structures found = TRY(vhd::read_structures(*file.source, file.options.vhd_size));
  report.add(found.defects);
  report.add(found.remarks);
  TRY(vhd::compare_footers(*file.source, found, report));
  vhd::tell_space_behind_disk(found, report);
  if (!found.has_places) return {};
  vhd::check_apart(found.sparse.metadata, report);
  return vhd::Check(*file.source, found.sparse, report).run();
}

}  // namespace underlay
