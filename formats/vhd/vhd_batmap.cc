#include "formats/vhd/vhd_batmap.h"

#include <algorithm>

namespace underlay::vhd {
namespace {

// 16 TiB in blocks of 2 MiB; larger ones are not used.
constexpr uint64_t kMaxBatmapBytes = 1 << 20;

Result<std::optional<BatmapHeader>> read_header(const SparseImage& sparse, const Source& source) {
  const uint64_t at = batmap_header_at(sparse.header);
  if (!range_within(at, kBatmapHeaderBytes, sparse.data_end)) return std::nullopt;
  std::array<std::byte, kBatmapHeaderBytes> bytes;
  TRY(source.read_at(at, bytes));
  return parse_batmap_header(bytes);
}

// Why the place that the header states is none for a batmap, "" when it is one.
std::string_view misplaced(const SparseImage& sparse, const BatmapHeader& header) {
  if (header.batmap_offset < batmap_header_at(sparse.header) + kBatmapHeaderBytes ||
      !range_within(header.batmap_offset, header.batmap_bytes, sparse.data_end)) {
    return "does not lie between its header and the end of the file";
  }
  const FileRange range{.offset = header.batmap_offset, .length = header.batmap_bytes};
  if (std::any_of(sparse.metadata.begin(), sparse.metadata.end(),
                  [&](const FileRange& other) { return range.overlaps(other); })) {
    return "overlaps other structures of the image";
  }
  if (header.batmap_bytes > kMaxBatmapBytes) return "is larger than 1 MiB";
  return "";
}

}  // namespace

uint64_t batmap_header_at(const DynamicHeader& header) {
  return header.table_offset + div_round_up(header.table_bytes(), kSectorBytes) * kSectorBytes;
}

Result<void> find_batmap(SparseImage& sparse, const Source& source, Defects& defects,
                         Remarks& remarks) {
  // Version 0.1 has none; one that was updated from it may have none.
  const Footer& footer = sparse.footer;
  if (!footer.is_by_tapdisk() || footer.creator_version < kTapdisk11) return {};
  const uint64_t at = batmap_header_at(sparse.header);
  sparse.batmap_header = TRY(read_header(sparse, source));
  const auto& header = sparse.batmap_header;
  if (!header) {
    if (footer.creator_version < kTapdisk12) return {};
    remarks.push_back(
        {.code = "batmap-missing",
         .text = fmt::format("tapdisk {}.{} writes a batmap, but none is at byte {}; the sector "
                             "bitmaps are used instead",
                             footer.creator_version >> 16, footer.creator_version & 0xffff, at)});
    return {};
  }
  if (header->is_encrypted) {
    defects.add(
        "encrypted",
        fail(ErrorKind::kUnsupported,
             "is encrypted (the batmap header at byte {} has a keyhash): encrypted images are not "
             "served; copy it to one without a key with tapdisk",
             at));
  }
  sparse.add_metadata({.offset = at, .length = kBatmapHeaderBytes});
  const auto unused = [&](std::string_view why) {
    remarks.push_back({.code = "batmap-unusable",
                       .text = fmt::format("the batmap at byte {} ({} bytes) {}; the sector "
                                           "bitmaps are used instead",
                                           header->batmap_offset, header->batmap_bytes, why),
                       .is_damage = true});
  };
  if (const auto why = misplaced(sparse, *header); !why.empty()) {
    unused(why);
    return {};
  }
  std::vector<std::byte> bits(static_cast<size_t>(header->batmap_bytes));
  TRY(source.read_at(header->batmap_offset, bits));
  const uint64_t proved = proved_batmap_bytes(*header, bits, footer.current_size);
  if (proved == 0) {
    unused(fmt::format("has a wrong checksum, or a version other than 1.1 and 1.2 ({:#010x})",
                       header->batmap_version));
    return {};
  }
  sparse.batmap = Batmap{.offset = header->batmap_offset, .bytes = proved};
  sparse.add_metadata({.offset = header->batmap_offset, .length = header->batmap_bytes});
  return {};
}

}  // namespace underlay::vhd
