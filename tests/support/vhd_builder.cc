#include "tests/support/vhd_builder.h"

#include <algorithm>
#include <cstring>

namespace underlay::vhd::test {
namespace {

constexpr size_t kSector = 512;
constexpr size_t kLocatorsAt = 576;
constexpr size_t kLocatorBytes = 24;

void put(Bytes& out, size_t at, ByteSpan bytes) {
  std::copy(bytes.begin(), bytes.end(), out.begin() + static_cast<std::ptrdiff_t>(at));
}

void append_padded(Bytes& out, ByteSpan bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
  out.resize(div_round_up(out.size(), kSector) * kSector);
}

uint32_t sum_of(ByteSpan bytes) {
  uint32_t sum = 0;
  for (const std::byte byte : bytes) sum += std::to_integer<uint32_t>(byte);
  return sum;
}

// As tapdisk summed batmaps of version 1.1.
uint32_t signed_sum_of(ByteSpan bytes) {
  int32_t sum = 0;
  for (const std::byte byte : bytes) sum += static_cast<int8_t>(byte);
  return static_cast<uint32_t>(sum);
}

void seal(MutableByteSpan bytes, size_t checksum_at) {
  store_be<uint32_t>(bytes, checksum_at, 0);
  store_be<uint32_t>(bytes, checksum_at, ~sum_of(bytes));
}

uint64_t bitmap_bytes(uint32_t block_size) {
  return div_round_up(div_round_up(block_size / kSector, 8), kSector) * kSector;
}

uint64_t padded(uint64_t bytes) { return div_round_up(bytes, kSector) * kSector; }

}  // namespace

Bytes utf16be(std::string_view text) {
  Bytes bytes(text.size() * 2);
  for (size_t i = 0; i < text.size(); ++i) bytes[2 * i + 1] = static_cast<std::byte>(text[i]);
  return bytes;
}

void seal_footer(Bytes& image, size_t at, size_t bytes) {
  seal(MutableByteSpan(image).subspan(at, bytes), 64);
}

void seal_header(Bytes& image, size_t at) { seal(MutableByteSpan(image).subspan(at, 1024), 36); }

uint32_t VhdBuilder::entries() const {
  return max_table_entries.value_or(static_cast<uint32_t>(div_round_up(current_size, block_size)));
}

uint64_t VhdBuilder::batmap_header_at() const { return kTableAt + padded(uint64_t{entries()} * 4); }

uint64_t VhdBuilder::locators_at() const {
  return batmap_header_at() + (batmap ? kSector + padded(batmap->size()) : 0);
}

uint64_t VhdBuilder::blocks_at() const {
  uint64_t at = locators_at();
  for (const Locator& locator : locators) at += padded(locator.data.size());
  return at;
}

std::map<uint32_t, uint64_t> VhdBuilder::block_offsets() const {
  std::map<uint32_t, uint64_t> offsets;
  uint64_t at = blocks_at();
  for (const auto& [number, block] : blocks) {
    offsets[number] = at;
    at += bitmap_bytes(block_size) + block.data.size();
  }
  return offsets;
}

Bytes VhdBuilder::footer() const {
  Bytes bytes(kSector);
  put(bytes, 0, as_bytes("conectix"));
  store_be<uint32_t>(bytes, 8, 2);
  store_be<uint32_t>(bytes, 12, 0x00010000);
  store_be<uint64_t>(bytes, 16, disk_type == 2 ? ~uint64_t{0} : kHeaderAt);
  put(bytes, 28, as_bytes(creator));
  store_be<uint32_t>(bytes, 32, creator_version);
  store_be<uint64_t>(bytes, 40, current_size);
  store_be<uint64_t>(bytes, 48, current_size);
  const bool one_track = cylinders == 0 && heads == 0 && sectors_per_track == 0;
  store_be<uint16_t>(bytes, 56,
                     one_track ? static_cast<uint16_t>(current_size / kSector) : cylinders);
  store_be<uint8_t>(bytes, 58, one_track ? uint8_t{1} : heads);
  store_be<uint8_t>(bytes, 59, one_track ? uint8_t{1} : sectors_per_track);
  store_be<uint32_t>(bytes, 60, disk_type);
  std::fill_n(bytes.begin() + 68, 16, id);
  seal(bytes, 64);
  return bytes;
}

Bytes VhdBuilder::header() const {
  Bytes bytes(1024);
  put(bytes, 0, as_bytes("cxsparse"));
  store_be<uint64_t>(bytes, 8, ~uint64_t{0});
  store_be<uint64_t>(bytes, 16, kTableAt);
  store_be<uint32_t>(bytes, 24, 0x00010000);
  store_be<uint32_t>(bytes, 28, entries());
  store_be<uint32_t>(bytes, 32, block_size);
  if (disk_type == 4) std::fill_n(bytes.begin() + 40, 16, parent_id);
  put(bytes, 64, parent_unicode_name);
  uint64_t at = locators_at();
  for (size_t i = 0; i < locators.size(); ++i) {
    const size_t entry = kLocatorsAt + i * kLocatorBytes;
    const Bytes& data = locators[i].data;
    put(bytes, entry, as_bytes(locators[i].code));
    store_be<uint32_t>(bytes, entry + 4,
                       locators[i].data_space.value_or(static_cast<uint32_t>(padded(data.size()))));
    store_be<uint32_t>(bytes, entry + 8, static_cast<uint32_t>(data.size()));
    store_be<uint64_t>(bytes, entry + 16, at);
    at += padded(data.size());
  }
  seal(bytes, 36);
  return bytes;
}

Bytes VhdBuilder::build() const {
  const Bytes end = footer();
  Bytes image;
  if (disk_type == 2) {
    image = fixed_data;
    image.insert(image.end(), end.begin(), end.end());
    return image;
  }
  append_padded(image, end);
  append_padded(image, header());
  Bytes table(size_t{entries()} * 4, std::byte{0xff});
  for (const auto& [number, at] : block_offsets()) {
    store_be<uint32_t>(table, size_t{number} * 4, static_cast<uint32_t>(at / kSector));
  }
  append_padded(image, table);
  if (batmap) {
    Bytes bits = *batmap;
    bits.resize(padded(bits.size()));
    Bytes head(kSector);
    put(head, 0, as_bytes("tdbatmap"));
    store_be<uint64_t>(head, 8, batmap_header_at() + kSector);
    store_be<uint32_t>(head, 16, static_cast<uint32_t>(bits.size() / kSector));
    store_be<uint32_t>(head, 20, batmap_version);
    store_be<uint32_t>(head, 24,
                       ~(batmap_version == 0x00010001 ? signed_sum_of(bits) : sum_of(bits)));
    append_padded(image, head);
    append_padded(image, bits);
  }
  for (const Locator& locator : locators) append_padded(image, locator.data);
  for (const auto& [number, block] : blocks) {
    Bytes bitmap = block.bitmap;
    bitmap.resize(bitmap_bytes(block_size));
    append_padded(image, bitmap);
    image.insert(image.end(), block.data.begin(), block.data.end());
  }
  image.insert(image.end(), end.begin(), end.end());
  return image;
}

}  // namespace underlay::vhd::test
