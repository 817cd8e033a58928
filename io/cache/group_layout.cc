#include "io/cache/group_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <charconv>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace underlay {
namespace {

constexpr std::string_view kMagic = "UNDLCAC1";
constexpr size_t kIdAt = 40;
constexpr size_t kHeaderDigestAt = kGroupTable - kDigestBytes;
static_assert(kIdAt + kMaxContentId <= kHeaderDigestAt);

constexpr size_t kObjectDigits = 32;
constexpr std::string_view kHexDigits = "0123456789abcdef";
constexpr std::string_view kBoot = "boot";

BlockDigest digest_of_header(ByteSpan header) { return digest_of(header.first(kHeaderDigestAt)); }

}  // namespace

BlockDigest digest_of(ByteSpan bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  static_assert(sizeof(canonical) == kDigestBytes);
  BlockDigest digest;
  std::memcpy(digest.data(), &canonical, digest.size());
  return digest;
}

std::string object_name(const ObjectFacts& object) {
  std::string name;
  for (const std::byte byte : digest_of(as_bytes(fmt::format("{} {}", object.size, object.id)))) {
    name += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  }
  return name;
}

GroupHeader make_group_header(const ObjectFacts& object, uint64_t group) {
  assert(object.id.size() <= kMaxContentId);
  GroupHeader header{};
  std::ranges::copy(as_bytes(kMagic), header.begin());
  store_be<uint64_t>(header, 8, kCacheBlock);
  store_be<uint64_t>(header, 16, object.size);
  store_be<uint64_t>(header, 24, group);
  store_be<uint64_t>(header, 32, object.id.size());
  std::ranges::copy(as_bytes(object.id), header.begin() + kIdAt);
  std::ranges::copy(digest_of_header(header), header.begin() + kHeaderDigestAt);
  return header;
}

std::optional<ObjectFacts> read_group_header(const GroupHeader& header) {
  const uint64_t id_bytes = load_be<uint64_t>(header, 32);
  if (!as_text(header).starts_with(kMagic) || id_bytes > kMaxContentId) return std::nullopt;
  ObjectFacts object{
      .id = std::string(as_text(ByteSpan(header).subspan(kIdAt, static_cast<size_t>(id_bytes)))),
      .size = load_be<uint64_t>(header, 16)};
  if (header != make_group_header(object, load_be<uint64_t>(header, 24))) return std::nullopt;
  return object;
}

std::string CacheFileName::to_string() const {
  return is_boot ? fmt::format("{}.{}", object, kBoot) : fmt::format("{}.{:x}", object, group);
}

std::optional<CacheFileName> parse_cache_file_name(std::string_view name) {
  if (name.size() < kObjectDigits + 2 || name[kObjectDigits] != '.') return std::nullopt;
  CacheFileName file{.object = std::string(name.substr(0, kObjectDigits))};
  if (file.object.find_first_not_of(kHexDigits) != std::string::npos) return std::nullopt;
  const std::string_view rest = name.substr(kObjectDigits + 1);
  if (rest == kBoot) {
    file.is_boot = true;
    return file;
  }
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), file.group, 16);
  if (error != std::errc() || end != rest.data() + rest.size()) return std::nullopt;
  return file;
}

}  // namespace underlay
