#include "formats/vmdk/vmdk_fields.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "formats/vmdk/vmdk_layout.h"

namespace underlay {
namespace {

std::string as_size(uint64_t sectors) {
  const auto bytes = checked_mul(sectors, kVmdkSectorBytes);
  return bytes ? fmt::format("{} bytes", *bytes) : "more than 2^64 bytes";
}

std::string as_place(uint64_t sector) {
  if (sector == kVmdkGdAtEnd) return "in the footer";
  const auto byte = checked_mul(sector, kVmdkSectorBytes);
  return byte ? fmt::format("byte {}", *byte) : "beyond 2^64 bytes";
}

std::string as_flags(uint64_t flags) {
  constexpr std::array<std::pair<unsigned, std::string_view>, 5> kFlags = {
      {{0, "line ends tell damage"},
       {1, "redundant directory"},
       {2, "zeroed grains"},
       {16, "compressed"},
       {17, "markers"}}};
  std::string text;
  for (const auto& [bit, name] : kFlags) {
    if ((flags >> bit & 1) == 0) continue;
    if (!text.empty()) text += ", ";
    text += name;
  }
  return text;
}

std::string as_shutdown(uint64_t unclean) { return unclean == 0 ? "clean" : "unclean"; }

std::string as_algorithm(uint64_t algorithm) {
  if (algorithm == 0) return "none";
  return algorithm == 1 ? "deflate" : "unknown";
}

std::string as_journal(uint64_t replay) { return replay == 0 ? "" : "to be replayed"; }

std::string as_marker(uint64_t type) {
  constexpr std::array<std::string_view, 4> kTypes = {"end of stream", "grain table",
                                                      "grain directory", "footer"};
  return type < kTypes.size() ? std::string(kTypes[type]) : "unknown";
}

constexpr std::array kHosted = {
    VmdkField{"magicNumber", 0, 4, true},
    VmdkField{"version", 4, 4},
    VmdkField{"flags", 8, 4, false, as_flags},
    VmdkField{"capacity", 12, 8, false, as_size},
    VmdkField{"grainSize", 20, 8, false, as_size},
    VmdkField{"descriptorOffset", 28, 8, false, as_place},
    VmdkField{"descriptorSize", 36, 8, false, as_size},
    VmdkField{"numGTEsPerGT", 44, 4},
    VmdkField{"rgdOffset", 48, 8, false, as_place},
    VmdkField{"gdOffset", 56, 8, false, as_place},
    VmdkField{"overHead", 64, 8, false, as_size},
    VmdkField{"uncleanShutdown", 72, 1, false, as_shutdown},
    VmdkField{"lineEnds", 73, 4, true},
    VmdkField{"compressAlgorithm", 77, 2, false, as_algorithm},
};

constexpr std::array kCowd = {
    VmdkField{"magicNumber", 0, 4, true},
    VmdkField{"version", 4, 4},
    VmdkField{"flags", 8, 4},
    VmdkField{"numSectors", 12, 4, false, as_size},
    VmdkField{"grainSize", 16, 4, false, as_size},
    VmdkField{"gdOffset", 20, 4, false, as_place},
    VmdkField{"numGDEntries", 24, 4},
    VmdkField{"freeSector", 28, 4, false, as_place},
    VmdkField{"generation", 1060, 4},
    VmdkField{"name", 1064, 60, true},
    VmdkField{"description", 1124, 512, true},
    VmdkField{"savedGeneration", 1636, 4},
    VmdkField{"uncleanShutdown", 1648, 4, false, as_shutdown},
};

constexpr std::array kSeSparse = {
    VmdkField{"magic", 0, 8},
    VmdkField{"version", 8, 8},
    VmdkField{"capacity", 16, 8, false, as_size},
    VmdkField{"grain_size", 24, 8, false, as_size},
    VmdkField{"grain_table_size", 32, 8, false, as_size},
    VmdkField{"flags", 40, 8},
    VmdkField{"volatile_header_offset", 80, 8, false, as_place},
    VmdkField{"volatile_header_size", 88, 8, false, as_size},
    VmdkField{"journal_header_offset", 96, 8, false, as_place},
    VmdkField{"journal_header_size", 104, 8, false, as_size},
    VmdkField{"journal_offset", 112, 8, false, as_place},
    VmdkField{"journal_size", 120, 8, false, as_size},
    VmdkField{"grain_dir_offset", 128, 8, false, as_place},
    VmdkField{"grain_dir_size", 136, 8, false, as_size},
    VmdkField{"grain_tables_offset", 144, 8, false, as_place},
    VmdkField{"grain_tables_size", 152, 8, false, as_size},
    VmdkField{"free_bitmap_offset", 160, 8, false, as_place},
    VmdkField{"free_bitmap_size", 168, 8, false, as_size},
    VmdkField{"backmap_offset", 176, 8, false, as_place},
    VmdkField{"backmap_size", 184, 8, false, as_size},
    VmdkField{"grains_offset", 192, 8, false, as_place},
    VmdkField{"grains_size", 200, 8, false, as_size},
};

constexpr std::array kVolatile = {
    VmdkField{"magic", 0, 8},
    VmdkField{"free_gt_number", 8, 8},
    VmdkField{"next_txn_seq_number", 16, 8},
    VmdkField{"replay_journal", 24, 8, false, as_journal},
};

constexpr std::array kMarker = {
    VmdkField{"val", 0, 8, false, as_size},
    VmdkField{"size", 8, 4},
    VmdkField{"type", 12, 4, false, as_marker},
};

constexpr std::array kGrain = {
    VmdkField{"lba", 0, 8, false, as_place},
    VmdkField{"size", 8, 4},
};

uint64_t load(ByteSpan bytes) {
  switch (bytes.size()) {
    case 1:
      return load_le<uint8_t>(bytes, 0);
    case 2:
      return load_le<uint16_t>(bytes, 0);
    case 4:
      return load_le<uint32_t>(bytes, 0);
    default:
      return load_le<uint64_t>(bytes, 0);
  }
}

}  // namespace

std::span<const VmdkField> vmdk_hosted_fields() { return kHosted; }
std::span<const VmdkField> vmdk_cowd_fields() { return kCowd; }
std::span<const VmdkField> vmdk_se_sparse_fields() { return kSeSparse; }
std::span<const VmdkField> vmdk_volatile_fields() { return kVolatile; }
std::span<const VmdkField> vmdk_marker_fields() { return kMarker; }
std::span<const VmdkField> vmdk_grain_fields() { return kGrain; }

Result<void> dump_vmdk_structure(DumpSink& sink, std::string_view name, uint64_t offset,
                                 ByteSpan bytes, std::span<const VmdkField> fields) {
  TRY(sink.begin(name, offset, bytes.size()));
  for (const VmdkField& field : fields) {
    const ByteSpan stored = bytes.subspan(field.offset, field.length);
    const uint64_t at = offset + field.offset;
    if (field.is_text) {
      const std::string_view text = as_text(stored);
      TRY(sink.field(field.name, at, field.length, std::string(text.substr(0, text.find('\0'))),
                     ""));
    } else {
      const uint64_t value = load(stored);
      TRY(sink.field(field.name, at, field.length, value,
                     field.meaning == nullptr ? "" : field.meaning(value)));
    }
  }
  return {};
}

}  // namespace underlay
