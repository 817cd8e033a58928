// VHDs in memory, whole ones and ones with a single wrong field.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/bytes.h"
#include "tests/support/test_bytes.h"

namespace underlay::vhd::test {

using underlay::test::Bytes;
using underlay::test::pattern;
using underlay::test::utf16le;
Bytes utf16be(std::string_view text);  // ASCII

// Describes a VHD; build() makes its bytes. Sizes are small by default, so that a test can go
// through a file sector by sector. The footer is at 0 (sparse images) and at the end, the dynamic
// header at kHeaderAt, the BAT at kTableAt; then come locator data, batmap and blocks.
struct VhdBuilder {
  static constexpr size_t kHeaderAt = 512;
  static constexpr size_t kTableAt = 1536;

  struct Block {
    Bytes bitmap;  // padded with zeros to whole sectors
    Bytes data;    // block_size bytes
  };
  struct Locator {
    std::string code;
    Bytes data;
    std::optional<uint32_t> data_space = std::nullopt;  // none: whole sectors, in bytes
  };

  uint32_t disk_type = 3;
  uint64_t current_size = 0;
  uint16_t cylinders = 0;  // all 0: a geometry of one track of current_size, when it can be said
  uint8_t heads = 0;
  uint8_t sectors_per_track = 0;
  std::string creator = "win ";
  uint32_t creator_version = 0x000a0000;
  std::byte id{0x11};         // each byte of unique_id
  std::byte parent_id{0x22};  // each byte of parent_unique_id
  uint32_t block_size = 4096;
  std::optional<uint32_t> max_table_entries;  // none: as many as current_size needs
  std::map<uint32_t, Block> blocks;
  std::vector<Locator> locators;
  Bytes parent_unicode_name;
  std::optional<Bytes> batmap;  // with tapdisk's header
  uint32_t batmap_version = 0x00010002;
  Bytes fixed_data;  // type 2

  Bytes build() const;
  // Where build() puts things: block -> byte of its sector bitmap.
  std::map<uint32_t, uint64_t> block_offsets() const;
  uint64_t batmap_header_at() const;

 private:
  Bytes footer() const;
  Bytes header() const;
  uint32_t entries() const;
  uint64_t locators_at() const;
  uint64_t blocks_at() const;
};

// Puts a new checksum over a structure that a test has changed.
void seal_footer(Bytes& image, size_t at, size_t bytes = 512);
void seal_header(Bytes& image, size_t at);

// The same change in the trailing footer and in the copy at 0, with new checksums.
template <class T>
void set_in_footers(Bytes& image, size_t offset, T value) {
  for (const size_t at : {size_t{0}, image.size() - 512}) {
    store_be<T>(image, at + offset, value);
    seal_footer(image, at);
  }
}
// A change in the dynamic disk header, with a new checksum.
template <class T>
void set_in_header(Bytes& image, size_t offset, T value) {
  store_be<T>(image, VhdBuilder::kHeaderAt + offset, value);
  seal_header(image, VhdBuilder::kHeaderAt);
}

}  // namespace underlay::vhd::test
