// Files that were compressed whole, as a Source of what they unpack to.
#pragma once

#include <memory>
#include <optional>

#include "formats/block_cache.h"
#include "io/source.h"

namespace underlay {

enum class Compression : uint8_t { kGzip, kXz, kZstd };

// By the first bytes of a file.
std::optional<Compression> find_compression(ByteSpan head);

// Refuses, with the command that unpacks it, what cannot be read from anywhere: gzip, xz whose
// blocks are too large, zstd without a seek table. `caches` outlives the source. May block.
Result<std::shared_ptr<const Source>> open_compressed(Compression compression,
                                                      std::shared_ptr<const Source> packed,
                                                      Caches& caches);

}  // namespace underlay
