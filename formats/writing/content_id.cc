#include "formats/writing/content_id.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>

namespace underlay {
namespace {

constexpr size_t kDigestBytes = 8;

}  // namespace

ContentId::ContentId(std::string_view tag, uint64_t disk_size, Zeros zeros) : zeros_(zeros) {
  mix(XXH3_64bits(tag.data(), tag.size()));
  mix(disk_size);
}

void ContentId::digest(ByteSpan bytes, std::vector<std::byte>& digests) {
  while (!bytes.empty()) {
    const ByteSpan chunk = bytes.first(std::min<size_t>(bytes.size(), kChunk));
    const size_t at = digests.size();
    digests.resize(at + kDigestBytes);
    // 0 stands for zeros.
    if (!is_zero(chunk)) {
      store_be<uint64_t>(digests, at, XXH3_64bits(chunk.data(), chunk.size()) | 1);
    }
    bytes = bytes.subspan(chunk.size());
  }
}

void ContentId::add(uint64_t offset, ByteSpan digests) {
  for (size_t at = 0; at < digests.size(); at += kDigestBytes, offset += kChunk) {
    const auto digest = load_be<uint64_t>(digests, at);
    if (digest == 0 && zeros_ == Zeros::kAsNothing) continue;
    mix(offset);
    mix(digest);
  }
}

std::array<std::byte, 16> ContentId::value() const {
  std::array<std::byte, 16> bytes{};
  store_be<uint64_t>(bytes, 0, state_[0]);
  store_be<uint64_t>(bytes, 8, state_[1]);
  return bytes;
}

void ContentId::mix(uint64_t number) {
  std::array<std::byte, 24> bytes{};
  store_be<uint64_t>(bytes, 0, state_[0]);
  store_be<uint64_t>(bytes, 8, state_[1]);
  store_be<uint64_t>(bytes, 16, number);
  const XXH128_hash_t mixed = XXH3_128bits(bytes.data(), bytes.size());
  state_ = {mixed.high64, mixed.low64};
}

}  // namespace underlay
