// The frames of a zstd file in the seekable format: "Zstandard Seekable Format", version 0.1.0 (in
// zstd's contrib/seekable_format). All integers are little-endian.
//
//   0     frames, one after the other, each of which unpacks alone
//   end   seek table, a skippable frame (RFC 8878, 3.1.2):
//           0 4 magic 0x184d2a5e
//           4 4 size of what follows
//           8   for each frame: u32 compressed size, u32 decompressed size, and, with the checksum
//               flag, u32 the low half of XXH64 (seed 0) of what it unpacks to
//         end-9 4 number of frames
//         end-5 1 descriptor: bit 7 checksum flag; bits 2 to 6 reserved, 0
//         end-4 4 magic 0x8f92eab1
#pragma once

#include "formats/container/unpacked_source.h"

namespace underlay::zstd {

struct SeekTable {
  PackedBlocks blocks;
  bool has_checksums = false;  // PackedBlock::check
};

// nullopt: the file has no seek table. May block.
Result<std::optional<SeekTable>> read_seek_table(const Source& file);

std::unique_ptr<const BlockCodec> make_codec(bool has_checksums);

}  // namespace underlay::zstd
