#include "tests/support/vhdx_builder.h"

#include <algorithm>

#include "formats/crc32c.h"
#include "io/store_le.h"

namespace underlay::vhdx::test {
namespace {

constexpr size_t kSector = 4096;  // of the log

void put(MutableByteSpan out, size_t at, ByteSpan bytes) {
  std::copy(bytes.begin(), bytes.end(), out.begin() + static_cast<std::ptrdiff_t>(at));
}

void seal_bytes(MutableByteSpan bytes) {
  store_le<uint32_t>(bytes, 4, 0);
  store_le<uint32_t>(bytes, 4, crc32c_around(bytes, 4));
}

}  // namespace

Guid guid(std::string_view text) { return parse_guid(text, GuidOrder::kLittleEndian).value(); }

Bytes LogEntry::build(const Guid& log_guid) const {
  const size_t head = div_round_up(64 + writes.size() * 32, kSector) * kSector;
  Bytes bytes(head);
  const auto half = [&](int shift) { return static_cast<uint32_t>(sequence_number >> shift); };
  for (size_t i = 0; i < writes.size(); ++i) {
    const LogWrite& write = writes[i];
    const MutableByteSpan descriptor = MutableByteSpan(bytes).subspan(64 + i * 32, 32);
    store_le<uint64_t>(descriptor, 16, write.offset);
    store_le<uint64_t>(descriptor, 24, sequence_number);
    if (write.bytes.empty()) {
      put(descriptor, 0, as_bytes("zero"));
      store_le<uint64_t>(descriptor, 8, write.zeros);
      continue;
    }
    put(descriptor, 0, as_bytes("desc"));
    put(descriptor, 4, ByteSpan(write.bytes).last(4));
    put(descriptor, 8, ByteSpan(write.bytes).first(8));
    Bytes sector = write.bytes;
    put(sector, 0, as_bytes("data"));
    store_le<uint32_t>(sector, 4, half(32));
    store_le<uint32_t>(sector, kSector - 4, half(0));
    bytes.insert(bytes.end(), sector.begin(), sector.end());
  }
  bytes.resize(bytes.size() + padding);
  put(bytes, 0, as_bytes("loge"));
  store_le<uint32_t>(bytes, 8, static_cast<uint32_t>(bytes.size()));
  store_le<uint32_t>(bytes, 12, tail);
  store_le<uint64_t>(bytes, 16, sequence_number);
  store_le<uint32_t>(bytes, 24, static_cast<uint32_t>(writes.size()));
  put(bytes, 32, log_guid);
  store_le<uint64_t>(bytes, 48, flushed_file_offset);
  store_le<uint64_t>(bytes, 56, last_file_offset);
  seal_bytes(bytes);
  return bytes;
}

Geometry VhdxBuilder::geometry() const {
  return {.virtual_disk_size = size,
          .block_size = block_size,
          .logical_sector_size = sector,
          .has_parent = !locator.empty()};
}

Bytes VhdxBuilder::header(uint64_t sequence_number) const {
  Bytes bytes(kHeaderBytes);
  put(bytes, 0, as_bytes("head"));
  store_le<uint64_t>(bytes, 8, sequence_number);
  put(bytes, 32, guid(data_write_guid));
  if (log_guid) put(bytes, 48, *log_guid);
  store_le<uint16_t>(bytes, 66, 1);
  store_le<uint32_t>(bytes, 68, 1 << 20);
  store_le<uint64_t>(bytes, 72, kLogAt);
  seal_bytes(bytes);
  return bytes;
}

Bytes VhdxBuilder::region_table() const {
  std::vector<Region> regions = {{"2DC27766-F623-4200-9D64-115E9BFD4A08", kBatAt},
                                 {"8B7CA206-4790-4B9A-B8FE-575F050F886E", kMetadataAt}};
  regions.insert(regions.end(), more_regions.begin(), more_regions.end());
  Bytes bytes(kRegionTableBytes);
  put(bytes, 0, as_bytes("regi"));
  store_le<uint32_t>(bytes, 8, static_cast<uint32_t>(regions.size()));
  for (size_t i = 0; i < regions.size(); ++i) {
    const size_t at = 16 + i * 32;
    put(bytes, at, guid(regions[i].guid));
    store_le<uint64_t>(bytes, at + 16, regions[i].offset);
    store_le<uint32_t>(bytes, at + 24, regions[i].length);
    store_le<uint32_t>(bytes, at + 28, regions[i].required);
  }
  seal_bytes(bytes);
  return bytes;
}

Bytes VhdxBuilder::metadata() const {
  Bytes parameters(8);
  Bytes disk_size(8);
  Bytes sector_size(4);
  store_le<uint32_t>(parameters, 0, block_size);
  store_le<uint32_t>(parameters, 4, flags | (locator.empty() ? 0 : 2));
  store_le<uint64_t>(disk_size, 0, size);
  store_le<uint32_t>(sector_size, 0, sector);
  std::vector<Item> items = {{"CAA16737-FA36-4D43-B3B6-33F0AA44E76B", parameters},
                             {"2FA54224-CD1B-4876-B211-5DBED83BF4B8", disk_size},
                             {"8141BF1D-A96F-4709-BA47-F233A8FAAB5F", sector_size},
                             {"BECA12AB-B2E6-4523-93EF-C309E000C746", Bytes(16)},
                             {"CDA348C7-445D-4471-9CC9-E9885251C556", sector_size}};
  if (!locator.empty()) {
    items.push_back({"A8D35F2D-B30B-454D-ABF7-D3D84834AB0C", parent_locator(locator)});
  }
  items.insert(items.end(), more_items.begin(), more_items.end());
  Bytes bytes(kMetadataTableBytes);
  put(bytes, 0, as_bytes("metadata"));
  store_le<uint16_t>(bytes, 10, static_cast<uint16_t>(items.size()));
  for (size_t i = 0; i < items.size(); ++i) {
    const size_t at = 32 + i * 32;
    put(bytes, at, guid(items[i].guid));
    store_le<uint32_t>(bytes, at + 16, static_cast<uint32_t>(bytes.size()));
    store_le<uint32_t>(bytes, at + 20, static_cast<uint32_t>(items[i].data.size()));
    store_le<uint32_t>(bytes, at + 24, items[i].flags);
    bytes.insert(bytes.end(), items[i].data.begin(), items[i].data.end());
  }
  return bytes;
}

uint64_t VhdxBuilder::block_offset(uint64_t block) const {
  uint64_t at = kBlocksAt;
  for (const auto& [number, what] : blocks) {
    if (number == block) break;
    if (!what.data.empty()) at += block_size;
  }
  return at;
}

uint64_t VhdxBuilder::bitmaps_at() const { return block_offset(geometry().blocks()); }

Bytes VhdxBuilder::build() const {
  const Geometry geometry = this->geometry();
  Bytes image(bitmaps_at());
  std::map<uint64_t, uint64_t> bitmaps;  // BAT entry -> offset
  for (const auto& [number, block] : blocks) {
    const uint64_t at = block.data.empty() ? 0 : block_offset(number);
    store_le<uint64_t>(image, kBatAt + geometry.entry_of(number) * 8, at | block.state);
    put(image, at == 0 ? kBlocksAt : at, block.data);
    if (block.state != BatEntry::kPartiallyPresent) continue;
    const uint64_t entry = geometry.bitmap_entry_of(number);
    if (bitmaps.count(entry) == 0) {
      bitmaps[entry] = image.size();
      store_le<uint64_t>(image, kBatAt + entry * 8, image.size() | BatEntry::kFullyPresent);
      image.resize(image.size() + kSectorBitmapBytes);
    }
    for (const uint64_t sector_of_block : block.sectors) {
      const uint64_t bit =
          number % geometry.chunk_ratio() * (block_size / sector) + sector_of_block;
      image[bitmaps[entry] + bit / 8] |= static_cast<std::byte>(1u << (bit % 8));
    }
  }
  put(image, 0, as_bytes(kFileSignature));
  put(image, kHeadersAt[0], header(1));
  put(image, kHeadersAt[1], header(2));
  for (const uint64_t at : kRegionTablesAt) put(image, at, region_table());
  put(image, kLogAt, log);
  put(image, kMetadataAt, metadata());
  return image;
}

Bytes parent_locator(const std::vector<std::pair<std::string, std::string>>& values) {
  Bytes bytes(20 + values.size() * 12);
  put(bytes, 0, guid("B04AEFB7-D19E-4A81-B789-25B8E9445913"));
  store_le<uint16_t>(bytes, 18, static_cast<uint16_t>(values.size()));
  size_t at = 20;
  for (const auto& [key, value] : values) {
    for (const auto& [text, offset_at, length_at] :
         {std::tuple(&key, 0u, 8u), std::tuple(&value, 4u, 10u)}) {
      const Bytes units = utf16le(*text);
      store_le<uint32_t>(bytes, at + offset_at, static_cast<uint32_t>(bytes.size()));
      store_le<uint16_t>(bytes, at + length_at, static_cast<uint16_t>(units.size()));
      bytes.insert(bytes.end(), units.begin(), units.end());
    }
    at += 12;
  }
  return bytes;
}

void seal(Bytes& image, size_t at, size_t bytes) {
  seal_bytes(MutableByteSpan(image).subspan(at, bytes));
}

}  // namespace underlay::vhdx::test
