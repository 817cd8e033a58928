#include "tests/support/vmdk_esx_builder.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/store_le.h"
#include "tests/support/vmdk_builder.h"

namespace underlay::vmdk_test {
namespace {

constexpr uint64_t kSector = 512;
constexpr uint64_t kEntries = 4096;  // in a table, of both kinds

bool is_zero(ByteSpan bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

// The grains of `content`, the last filled up with zeros.
std::vector<std::vector<std::byte>> grains_of(ByteSpan content, uint64_t size) {
  std::vector<std::vector<std::byte>> grains;
  for (uint64_t start = 0; start < content.size(); start += size) {
    const ByteSpan part = content.subspan(start, std::min(size, content.size() - start));
    grains.emplace_back(part.begin(), part.end());
    grains.back().resize(size);
  }
  return grains;
}

bool has_grain(const std::vector<std::vector<std::byte>>& grains, uint64_t table) {
  const uint64_t end = std::min<uint64_t>(grains.size(), (table + 1) * kEntries);
  for (uint64_t i = table * kEntries; i < end; ++i) {
    if (!is_zero(grains[i])) return true;
  }
  return false;
}

}  // namespace

uint64_t BuiltEsx::entry_offset(uint64_t grain) const {
  return tables.at(grain / kEntries) + grain % kEntries * entry_bytes;
}

uint64_t BuiltEsx::entry(uint64_t grain) const {
  const uint64_t at = entry_offset(grain);
  return entry_bytes == 8 ? load_le<uint64_t>(bytes, at) : load_le<uint32_t>(bytes, at);
}

void BuiltEsx::set_entry(uint64_t grain, uint64_t value) {
  if (entry_bytes == 8) return store_le<uint64_t>(bytes, entry_offset(grain), value);
  store_le<uint32_t>(bytes, entry_offset(grain), static_cast<uint32_t>(value));
}

void BuiltEsx::set_directory_entry(uint64_t table, uint64_t value) {
  if (entry_bytes == 8) return store_le<uint64_t>(bytes, directory + 8 * table, value);
  store_le<uint32_t>(bytes, directory + 4 * table, static_cast<uint32_t>(value));
}

// Header, directory; each table, and behind it its grains, as ESX lets the file grow.
BuiltEsx build_cowd(ByteSpan content, uint64_t grain_size) {
  const auto grains = grains_of(content, grain_size * kSector);
  const uint64_t tables = div_round_up(grains.size(), kEntries);
  BuiltEsx built{.bytes = {}, .entry_bytes = 4, .directory = 4 * kSector, .tables = {}};
  built.bytes.resize(*round_up(built.directory + 4 * tables, kSector));
  for (uint64_t table = 0; table < tables; ++table) {
    built.tables.push_back(has_grain(grains, table) ? built.bytes.size() : 0);
    if (built.tables.back() == 0) continue;
    built.set_directory_entry(table, built.bytes.size() / kSector);
    built.bytes.resize(built.bytes.size() + 4 * kEntries);
    const uint64_t end = std::min<uint64_t>(grains.size(), (table + 1) * kEntries);
    for (uint64_t i = table * kEntries; i < end; ++i) {
      if (is_zero(grains[i])) continue;
      built.set_entry(i, built.bytes.size() / kSector);
      built.bytes.insert(built.bytes.end(), grains[i].begin(), grains[i].end());
    }
  }
  std::copy_n(as_bytes("COWD").begin(), 4, built.bytes.begin());
  size_t at = 4;
  for (const uint64_t field : {uint64_t{1}, uint64_t{3}, content.size() / kSector, grain_size,
                               built.directory / kSector, tables, built.bytes.size() / kSector}) {
    store_le<uint32_t>(built.bytes, at, static_cast<uint32_t>(field));
    at += 4;
  }
  return built;
}

uint64_t se_sparse_stored(uint64_t number) {
  return uint64_t{3} << 60 | (number & 0xfff) << 48 | number >> 12;
}

// The regions in the order of the header's fields, tables numbered last to first.
BuiltEsx build_se_sparse(ByteSpan content, uint64_t first_grain) {
  constexpr uint64_t kTableSectors = 64;
  const auto grains = grains_of(content, 8 * kSector);
  const uint64_t tables = div_round_up(grains.size(), kEntries);
  const uint64_t directory_sectors = div_round_up(8 * tables, kSector);
  // volatile header, journal header, journal, directory, tables, free bitmap, backmap, grains
  const std::vector<uint64_t> sizes = {1,
                                       2,
                                       8,
                                       directory_sectors,
                                       kTableSectors * tables,
                                       1,
                                       1,
                                       first_grain * 8 + grains.size() * 8};
  std::vector<uint64_t> offsets;
  uint64_t sector = 1;
  for (const uint64_t size : sizes) {
    offsets.push_back(sector);
    sector += size;
  }
  BuiltEsx built{.bytes = {}, .entry_bytes = 8, .directory = offsets[3] * kSector, .tables = {}};
  built.bytes.resize((offsets[7] + first_grain * 8) * kSector);
  for (uint64_t i = 0; i < tables; ++i) {
    const uint64_t number = tables - 1 - i;
    built.tables.push_back(has_grain(grains, i) ? (offsets[4] + number * kTableSectors) * kSector
                                                : 0);
    if (built.tables.back() != 0) {
      built.set_directory_entry(i, uint64_t{0x10000000} << 32 | number);
    }
  }
  uint64_t number = first_grain;
  for (uint64_t i = 0; i < grains.size(); ++i) {
    if (is_zero(grains[i])) continue;
    built.set_entry(i, se_sparse_stored(number++));
    built.bytes.insert(built.bytes.end(), grains[i].begin(), grains[i].end());
  }
  const std::vector<uint64_t> head = {0xcafebabe, 0x200000001, content.size() / kSector, 8, 64};
  for (size_t i = 0; i < head.size(); ++i) store_le<uint64_t>(built.bytes, 8 * i, head[i]);
  for (size_t i = 0; i < sizes.size(); ++i) {
    store_le<uint64_t>(built.bytes, 80 + 16 * i, offsets[i]);
    store_le<uint64_t>(built.bytes, 88 + 16 * i, sizes[i]);
  }
  store_le<uint64_t>(built.bytes, kSector, 0xcafecafe);
  return built;
}

std::string esx_descriptor(std::string_view create_type, std::string_view extent_type,
                           uint64_t sectors) {
  return vmdk_text(create_type, {fmt::format("RW {} {} \"extent\"", sectors, extent_type)});
}

}  // namespace underlay::vmdk_test
