// The blocks of an .xz file: "The .xz File Format", version 1.0.4 (sections 2: streams, 3: blocks,
// 4: the index at a stream's end), read by liblzma.
#pragma once

#include "formats/container/unpacked_source.h"

namespace underlay::xz {

// From the indexes at the ends of the file's streams. May block.
Result<PackedBlocks> read_index(const Source& file);

std::unique_ptr<const BlockCodec> make_codec();

}  // namespace underlay::xz
