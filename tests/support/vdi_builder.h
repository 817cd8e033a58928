// VDIs in memory, whole ones and ones with a single wrong field.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "io/bytes.h"
#include "tests/support/test_bytes.h"

namespace underlay::vdi::test {

using underlay::test::Bytes;
using underlay::test::pattern;

// Describes a VDI; build() makes its bytes as VirtualBox's VDICore.h has them (VDIPREHEADER,
// VDIHEADER1). Blocks are small by default, so that a test can go through a file sector by sector.
struct VdiBuilder {
  static constexpr size_t kMapAt = 512;
  static constexpr size_t kDataAt = 1024;  // with at most 128 blocks

  uint32_t image_type = 1;
  uint64_t disk_size = 0;
  uint32_t block_size = 4096;
  uint32_t block_extra = 0;
  std::optional<uint32_t> blocks_in_image;   // none: as many as disk_size needs
  std::optional<uint32_t> blocks_allocated;  // none: as many as are stored
  std::byte id{0x11};                        // each byte of uuid_image
  std::byte revision{0x12};                  // ... uuid_last_snap
  std::byte parent_id{0};                    // ... uuid_link
  std::byte parent_revision{0};              // ... uuid_parent
  std::map<uint32_t, uint32_t> entries;      // of the map; the others are free
  std::vector<Bytes> stored;                 // block_size bytes each

  Bytes build() const;
};

}  // namespace underlay::vdi::test
