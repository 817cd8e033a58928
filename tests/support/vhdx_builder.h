// VHDXs in memory, whole ones and ones with a single wrong field. Sections are those of "[MS-VHDX]:
// Virtual Hard Disk v2 (VHDX) File Format".
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "formats/vhdx/vhdx_layout.h"
#include "io/store_le.h"
#include "tests/support/test_bytes.h"

namespace underlay::vhdx::test {

using underlay::test::Bytes;
using underlay::test::pattern;
using underlay::test::utf16le;
Guid guid(std::string_view text);

// One write of a log entry: 4096 bytes, or `zeros` bytes of zeros.
struct LogWrite {
  uint64_t offset = 0;
  Bytes bytes{};
  uint64_t zeros = 0;
};
struct LogEntry {
  uint64_t sequence_number = 1;
  uint32_t tail = 0;
  std::vector<LogWrite> writes{};
  uint64_t flushed_file_offset = 0;
  uint64_t last_file_offset = 0;
  uint32_t padding = 0;  // bytes behind the data sectors

  // 2.3.1
  Bytes build(const Guid& log_guid) const;
};

// Describes a VHDX; build() makes its bytes: log, metadata and BAT of 1 MiB each at kLogAt,
// kMetadataAt and kBatAt, the blocks behind them in ascending order, then sector bitmap blocks.
struct VhdxBuilder {
  static constexpr size_t kLogAt = 1 << 20;
  static constexpr size_t kMetadataAt = 2 << 20;
  static constexpr size_t kBatAt = 3 << 20;
  static constexpr size_t kBlocksAt = 4 << 20;
  static constexpr size_t kItemsAt = kMetadataAt + kMetadataTableBytes;

  struct Block {
    uint8_t state = BatEntry::kFullyPresent;
    Bytes data{};                     // none: the entry has no offset
    std::vector<uint64_t> sectors{};  // kPartiallyPresent: those that are present
  };
  struct Item {
    std::string guid;
    Bytes data;
    uint32_t flags = 4;
  };
  struct Region {
    std::string guid;
    uint64_t offset = 0;
    uint32_t length = 1 << 20;
    uint32_t required = 1;
  };

  uint64_t size = 4 << 20;
  uint32_t block_size = 1 << 20;
  uint32_t sector = 512;
  uint32_t flags = 0;
  std::string data_write_guid = "11111111-2222-3333-4444-555555555555";
  std::optional<Guid> log_guid;
  Bytes log;  // at kLogAt
  std::map<uint64_t, Block> blocks;
  std::vector<std::pair<std::string, std::string>> locator;  // and HasParent, when not empty
  std::vector<Item> more_items;
  std::vector<Region> more_regions;

  Bytes build() const;
  // Where build() puts the data of a block.
  uint64_t block_offset(uint64_t block) const;
  uint64_t bitmaps_at() const;

 private:
  Geometry geometry() const;
  Bytes header(uint64_t sequence_number) const;
  Bytes region_table() const;
  Bytes metadata() const;
};

Bytes parent_locator(const std::vector<std::pair<std::string, std::string>>& values);

// Puts a new checksum over a structure that a test has changed: a header, a region table.
void seal(Bytes& image, size_t at, size_t bytes);

// A change in both headers, or in both region tables, with new checksums.
template <class T>
void set_in_headers(Bytes& image, size_t offset, T value) {
  for (const uint64_t at : kHeadersAt) {
    store_le<T>(image, at + offset, value);
    seal(image, at, kHeaderBytes);
  }
}
template <class T>
void set_in_region_tables(Bytes& image, size_t offset, T value) {
  for (const uint64_t at : kRegionTablesAt) {
    store_le<T>(image, at + offset, value);
    seal(image, at, kRegionTableBytes);
  }
}

}  // namespace underlay::vhdx::test
