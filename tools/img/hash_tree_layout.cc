#include "tools/img/hash_tree_layout.h"

#include <algorithm>
#include <bit>

namespace underlay::img {
namespace {

constexpr std::string_view kSignature{"verity\0\0", 8};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kHashType = 1;
constexpr size_t kAlgorithmBytes = 32;
constexpr size_t kSaltSizeAt = 80;
constexpr size_t kSaltAt = 88;

// The one place of the programs that writes little-endian integers.
template <class T>
void put_le(MutableByteSpan bytes, size_t offset, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) {
    bytes[offset + i] = static_cast<std::byte>(value >> 8 * i & 0xff);
  }
}

Result<void> check_block_size(std::string_view field, uint32_t bytes) {
  if (is_hashed_block_size(bytes)) return {};
  return fail(ErrorKind::kMalformed, "{} is {}: it must be a power of two from {} to {}", field,
              bytes, kSmallestHashedBlock, kLargestHashedBlock);
}

}  // namespace

bool is_hashed_block_size(uint64_t bytes) {
  return std::has_single_bit(bytes) && bytes >= kSmallestHashedBlock &&
         bytes <= kLargestHashedBlock;
}

Result<HashTreeSuperblock> parse_hash_tree_superblock(ByteSpan bytes) {
  ByteReader reader(bytes.first(HashTreeSuperblock::kBytes));
  if (as_text(reader.bytes(kSignature.size())) != kSignature) {
    return fail(ErrorKind::kMalformed,
                "has no superblock of a hash tree: its first bytes are not \"verity\"");
  }
  if (const auto version = reader.le<uint32_t>(); version != kVersion) {
    return fail(ErrorKind::kUnsupported, "version is {}: only {} is read", version, kVersion);
  }
  if (const auto type = reader.le<uint32_t>(); type != kHashType) {
    return fail(ErrorKind::kUnsupported,
                "hash_type is {}: only {} is read; veritysetup verify reads others", type,
                kHashType);
  }
  HashTreeSuperblock superblock;
  std::ranges::copy(reader.bytes(superblock.uuid.size()), superblock.uuid.begin());
  const std::string_view algorithm = as_text(reader.bytes(kAlgorithmBytes));
  const auto* const known = find_hash_algorithm(algorithm.substr(0, algorithm.find('\0')));
  if (known == nullptr) {
    return fail(ErrorKind::kUnsupported,
                "algorithm is \"{}\": only sha1, sha224, sha256, sha384 and sha512 are read",
                printable(algorithm.substr(0, algorithm.find('\0'))));
  }
  superblock.algorithm = *known;
  superblock.data_block_size = reader.le<uint32_t>();
  superblock.hash_block_size = reader.le<uint32_t>();
  superblock.data_blocks = reader.le<uint64_t>();
  const auto salt_size = reader.le<uint16_t>();
  TRY(check_block_size("data_block_size", superblock.data_block_size));
  TRY(check_block_size("hash_block_size", superblock.hash_block_size));
  if (superblock.data_blocks == 0) return fail(ErrorKind::kMalformed, "data_blocks is 0");
  if (salt_size > ShortBytes::kCapacity) {
    return fail(ErrorKind::kMalformed, "salt_size is {}: at most {}", salt_size,
                ShortBytes::kCapacity);
  }
  superblock.salt = ShortBytes::copy_of(bytes.subspan(kSaltAt, salt_size));
  return superblock;
}

std::array<std::byte, HashTreeSuperblock::kBytes> hash_tree_superblock_bytes(
    const HashTreeSuperblock& superblock) {
  std::array<std::byte, HashTreeSuperblock::kBytes> bytes{};
  std::ranges::copy(as_bytes(kSignature), bytes.begin());
  put_le(bytes, 8, kVersion);
  put_le(bytes, 12, kHashType);
  std::ranges::copy(superblock.uuid, bytes.begin() + 16);
  std::ranges::copy(as_bytes(superblock.algorithm.name), bytes.begin() + 32);
  put_le(bytes, 64, superblock.data_block_size);
  put_le(bytes, 68, superblock.hash_block_size);
  put_le(bytes, 72, superblock.data_blocks);
  put_le(bytes, kSaltSizeAt, static_cast<uint16_t>(superblock.salt.size()));
  std::ranges::copy(superblock.salt.bytes(), bytes.begin() + kSaltAt);
  return bytes;
}

Result<HashTreeLayout> HashTreeLayout::of(const HashTreeSuperblock& superblock) {
  HashTreeLayout layout;
  layout.slot_bytes = std::bit_ceil(superblock.algorithm.bytes);
  layout.slots = superblock.hash_block_size / layout.slot_bytes;
  for (uint64_t blocks = superblock.data_blocks; blocks > 1;) {
    blocks = div_round_up(blocks, layout.slots);
    layout.levels.push_back({.offset = 0, .blocks = blocks});
  }
  // The superblock has a hash block for itself.
  uint64_t block = 1;
  for (auto level = layout.levels.rbegin(); level != layout.levels.rend(); ++level) {
    level->offset = block;
    block += level->blocks;  // all together at most data_blocks
  }
  const auto end = checked_mul<uint64_t>(block, superblock.hash_block_size);
  if (!end) {
    return fail(ErrorKind::kMalformed, "data_blocks is {}: the tree would not fit into 64 bits",
                superblock.data_blocks);
  }
  layout.end = *end;
  for (HashTreeLevel& level : layout.levels) level.offset *= superblock.hash_block_size;
  return layout;
}

}  // namespace underlay::img
