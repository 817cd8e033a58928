// Which of a sparse extent's grain directories is to be used, and whether it is whole.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/vmdk/vmdk_geometry.h"
#include "io/source.h"

namespace underlay {

// A grain table that a directory names.
struct VmdkTable {
  uint64_t sector = 0;
  uint64_t number = 0;
  auto operator<=>(const VmdkTable&) const = default;
};

// Byte of the last of `tables`, which are in order, that begins before the end of a grain of
// `length` bytes of the guest's at `sector`: if any table overlaps the grain, then this one.
// `other`, a sector, when there is none.
uint64_t nearest_vmdk_table(std::span<const VmdkTable> tables, const VmdkGeometry& geometry,
                            uint64_t sector, uint64_t length, uint64_t other);

// Chooses between geometry.directory and, when it is not 0, the one at sector `redundant`, which
// has tables of its own for the same grains; leaves the choice in geometry.directory. The redundant
// one is used, with a warning, when it is whole and the primary is not. Fails when none is whole:
// when the directory or tables lie beyond the end of the file or in other metadata or in each
// other, or, of all tables that together are small, an entry names a grain there. Entries that are
// not looked at here are checked when they are used. `size`: bytes of the extent that the guest can
// see. May block.
Result<void> choose_vmdk_directory(const Source& source, VmdkGeometry& geometry, uint64_t redundant,
                                   uint64_t size, std::vector<std::string>& warnings);

}  // namespace underlay
