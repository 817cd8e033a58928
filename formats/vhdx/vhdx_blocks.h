// The blocks of a VHDX: what the entries of the BAT say, and where blocks may lie ([MS-VHDX] 2.5).
// Pure, as the layout is.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/defect.h"
#include "formats/vhdx/vhdx_layout.h"

namespace underlay::vhdx {

class BatRules {
 public:
  // What an entry says of its payload block.
  enum class Content : uint8_t { kParents, kZeros, kStored, kPartlyStored };

  // `structures`: log and regions, ascending; `file_size`: of the replayed file, named `file`.
  BatRules(const Geometry& geometry, const FileRange& bat, std::vector<FileRange> structures,
           uint64_t file_size, std::string file)
      : geometry_(geometry),
        bat_(bat),
        structures_(std::move(structures)),
        file_size_(file_size),
        file_(std::move(file)) {}

  // In the file.
  uint64_t entry_offset(uint64_t number) const { return bat_.offset + number * 8; }
  // Of the last block, only what the disk has: writers leave the rest out of the file.
  uint64_t used_bytes(uint64_t block) const;

  // What the state of a payload block means (2.5.1.1). Only absent blocks are the parent's: those
  // that were unmapped, zeroed or never defined hide it. REQUIRES: no payload_defect().
  Content content_of(const BatEntry& entry) const;

  // Can the entry of a payload block be relied on? payload_defect() without words.
  bool is_payload_sound(uint64_t block, const BatEntry& entry) const;
  // Does a stored block of `length` bytes lie where blocks may lie? misplacement() without words.
  bool is_well_placed(const BatEntry& entry, uint64_t length) const;

  // Why the entry of a payload block cannot be relied on; nullopt: it can.
  std::optional<Defect> payload_defect(uint64_t block, const BatEntry& entry) const;
  // The same of entry `number`, of the sector bitmap block that payload block `block` needs.
  std::optional<Defect> bitmap_defect(uint64_t number, const BatEntry& entry, uint64_t block) const;
  // Why a stored block of `length` bytes, `what`, does not lie where blocks may lie.
  std::optional<Defect> misplacement(std::string_view what, uint64_t number, const BatEntry& entry,
                                     uint64_t length) const;

 private:
  // May a payload block have it (2.5.1.1)?
  bool can_have_state(const BatEntry& entry) const;

  Geometry geometry_;
  FileRange bat_;
  std::vector<FileRange> structures_;
  uint64_t file_size_;
  std::string file_;
};

}  // namespace underlay::vhdx
