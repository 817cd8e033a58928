// Files of the cache, as bytes: what a group of blocks of a remote image looks like on disk.
//
// A file holds 64 neighbouring blocks of 64 KiB of one object, or those of them that were fetched:
//
//   byte 0      header: magic number, sizes, place in the object, the object's id, a digest
//   byte 4096   64 digests of 16 bytes, one for each block; zeros: the block is not here
//   byte 8192   the blocks, each in its place; holes where there is none
//
// Nothing is ever written in a certain order for the sake of a power failure: a header counts when
// it is exactly the one that is expected, a block when its digest is that of its bytes.
//
// 64 KiB is qcow2's usual cluster. Less would cost a request for each small read of a booting
// guest; more would fetch much that nobody reads. 4 MiB is what is evicted at once.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "io/bytes.h"

namespace underlay {

inline constexpr uint64_t kCacheBlock = 64 << 10;  // bytes
inline constexpr unsigned kGroupBlocks = 64;
inline constexpr uint64_t kGroupTable = 4096;  // where the digests are
inline constexpr uint64_t kGroupData =
    8192;  // where the blocks are, and what a file costs at least
inline constexpr size_t kDigestBytes = 16;
inline constexpr size_t kMaxContentId = 3072;  // bytes; an object with a longer one is not cached

// XXH3, 128 bits: against damage. Whoever may write to the folder is trusted.
using BlockDigest = std::array<std::byte, kDigestBytes>;
BlockDigest digest_of(ByteSpan bytes);

// What stays the same under one name for ever: Source::content_id(), and the size in bytes.
struct ObjectFacts {
  std::string id;
  uint64_t size = 0;
  bool operator==(const ObjectFacts&) const = default;
};

// 32 hexadecimal digits that name the object's files.
std::string object_name(const ObjectFacts& object);

using GroupHeader = std::array<std::byte, kGroupTable>;
// REQUIRES: object.id.size() <= kMaxContentId.
GroupHeader make_group_header(const ObjectFacts& object, uint64_t group);

// Whose group it is; nullopt for what is no header, or a damaged one.
std::optional<ObjectFacts> read_group_header(const GroupHeader& header);

// A file of the cache: a group of an object, or what is remembered of its first reads.
struct CacheFileName {
  std::string object;  // object_name()
  bool is_boot = false;
  uint64_t group = 0;  // unless is_boot
  std::string to_string() const;
};
// nullopt for names that the cache gives to no file.
std::optional<CacheFileName> parse_cache_file_name(std::string_view name);

}  // namespace underlay
