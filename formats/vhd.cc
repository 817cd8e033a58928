#include "formats/vhd.h"

#include <algorithm>

#include "formats/option_values.h"
#include "formats/vhd_layout.h"
#include "formats/vhd_parent.h"
#include "formats/vhd_reader.h"

namespace underlay {
namespace vhd {
namespace {

constexpr uint32_t kTapdisk01 = 0x00000001;
constexpr uint32_t kTapdisk11 = 0x00010001;      // the first that may have written a batmap
constexpr uint64_t kMaxTableToCheck = 1 << 20;   // bytes of a BAT that is checked at the opening
constexpr uint64_t kMaxBatmapToCheck = 1 << 20;  // bytes; larger ones are not used

using VhdSize = ImageOptions::VhdSize;

bool made_by_tapdisk(const Footer& footer) { return footer.creator().starts_with("tap"); }

Result<FoundFooter> read_footer(const Source& source) {
  std::vector<std::byte> head(std::min<uint64_t>(source.size(), kFooterBytes));
  std::vector<std::byte> tail(head.size());
  TRY(source.read_at(0, head));
  TRY(source.read_at(source.size() - tail.size(), tail));
  auto found = find_footer(head, tail, source.size());
  if (!found && found.error().kind == ErrorKind::kNotFound) {
    found.error().kind = ErrorKind::kMalformed;
    return with_context(std::move(found).error(), "is no VHD, or was truncated: ");
  }
  return found;
}

constexpr std::string_view kHowToForce =
    "--image-opts driver=vpc,force_size_calc=chs|current_size,file.filename=... forces one of them";

// The disk's size by the rule that was asked for. `capacity`: bytes that the image can hold.
Result<uint64_t> disk_size(const Footer& footer, uint64_t capacity, const ImageToOpen& image) {
  const uint64_t chs = footer.geometry_is_saturated() ? footer.current_size : footer.chs_size();
  const uint64_t by_creator = footer.creator_means_current_size() ? footer.current_size : chs;
  uint64_t size = by_creator;
  if (image.options.vhd_size == VhdSize::kChs) size = chs;
  if (image.options.vhd_size == VhdSize::kCurrentSize) size = footer.current_size;
  if (image.options.vhd_size == VhdSize::kLargest) {
    size = std::max(by_creator, std::min(capacity, std::max(chs, footer.current_size)));
  }
  if (size > capacity) {
    return fail(ErrorKind::kTruncated,
                "its size is {} bytes (current_size {}, by geometry {}), but the image holds at "
                "most {}: it is truncated or damaged, or the other size is meant: {}",
                size, footer.current_size, chs, capacity, kHowToForce);
  }
  if (chs != footer.current_size && image.options.vhd_size == VhdSize::kByCreator) {
    image.warnings.push_back(fmt::format(
        "current_size is {} bytes, but the geometry amounts to {}; creator \"{}\" means {}; {}",
        footer.current_size, chs, footer.creator(), size, kHowToForce));
  }
  return size;
}

Result<DynamicHeader> read_dynamic_header(const Source& source, const FoundFooter& found) {
  const uint64_t at = found.footer.data_offset;
  if (at < kFooterBytes || !is_aligned(at, kSectorBytes) ||
      !range_within(at, kDynamicHeaderBytes, found.data_end)) {
    return fail(ErrorKind::kMalformed,
                "the dynamic disk header at data_offset {} does not lie in whole sectors between "
                "the copy of the footer and byte {}",
                at, found.data_end);
  }
  std::array<std::byte, kDynamicHeaderBytes> bytes;
  TRY(source.read_at(at, bytes));
  auto header = parse_dynamic_header(bytes);
  if (!header) return in_file(std::move(header).error(), source.name(), at);
  const uint64_t free_from = at + kDynamicHeaderBytes;
  const bool before_header = range_within(header->table_offset, header->table_bytes(), at);
  if (header->table_offset < kFooterBytes || (header->table_offset < free_from && !before_header)) {
    return fail(ErrorKind::kMalformed, "the BAT at table_offset {} overlaps the headers",
                header->table_offset);
  }
  if (!range_within(header->table_offset, header->table_bytes(), found.data_end)) {
    return fail(ErrorKind::kTruncated,
                "the BAT of {} entries at table_offset {} reaches beyond byte {}: the file is "
                "truncated or damaged",
                header->max_table_entries, header->table_offset, found.data_end);
  }
  return header;
}

Result<ParentLink> parent_link(const SparseImage& sparse, const ImageToOpen& image) {
  if (made_by_tapdisk(sparse.footer) && sparse.footer.creator_version <= kTapdisk01) {
    return fail(ErrorKind::kUnsupported,
                "is a differencing image of tapdisk {}.{}, whose sector bitmaps have another bit "
                "order; convert it with vhd-util",
                sparse.footer.creator_version >> 16, sparse.footer.creator_version & 0xffff);
  }
  if (is_null(sparse.header.parent_unique_id)) {
    return fail(ErrorKind::kUnsupported,
                "is a differencing image without parent_unique_id, whose parent is a raw disk: "
                "such parents are not served; coalesce the image with vhd-util");
  }
  ParentLink link;
  link.names = TRY(parent_names(sparse.header, *image.source, sparse.data_end, image.warnings));
  link.format = "vpc";
  link.identity = to_string(sparse.header.parent_unique_id);
  link.options.vhd_size = VhdSize::kLargest;
  return link;
}

// tapdisk's batmap, when there is a whole one. Without it, the sector bitmaps say the same.
Result<std::optional<BatmapHeader>> find_batmap(const SparseImage& sparse,
                                                const ImageToOpen& image) {
  if (!made_by_tapdisk(sparse.footer) || sparse.footer.creator_version < kTapdisk11) {
    return std::nullopt;
  }
  const DynamicHeader& header = sparse.header;
  const uint64_t at =
      header.table_offset + div_round_up(header.table_bytes(), kSectorBytes) * kSectorBytes;
  if (!range_within(at, kBatmapHeaderBytes, sparse.data_end)) return std::nullopt;
  std::array<std::byte, kBatmapHeaderBytes> bytes;
  TRY(image.source->read_at(at, bytes));
  const auto batmap = parse_batmap_header(bytes);
  if (!batmap) return std::nullopt;

  const auto unused = [&](std::string_view why) {
    image.warnings.push_back(
        fmt::format("the batmap at byte {} ({} bytes) {}; the sector bitmaps are used instead",
                    batmap->batmap_offset, batmap->batmap_bytes, why));
    return std::nullopt;
  };
  if (batmap->batmap_offset < at + kBatmapHeaderBytes ||
      !range_within(batmap->batmap_offset, batmap->batmap_bytes, sparse.data_end)) {
    return unused("does not lie between its header and the end of the file");
  }
  if (batmap->batmap_bytes < div_round_up(div_round_up(sparse.size, header.block_size), 8)) {
    return unused("has fewer bits than the disk has blocks");
  }
  if (batmap->batmap_bytes > kMaxBatmapToCheck) {
    return unused(fmt::format("is larger than {} bytes", kMaxBatmapToCheck));
  }
  std::vector<std::byte> bits(static_cast<size_t>(batmap->batmap_bytes));
  TRY(image.source->read_at(batmap->batmap_offset, bits));
  if (!batmap_checksum_holds(*batmap, bits)) return unused("has a wrong checksum");
  return batmap;
}

Result<std::unique_ptr<Reader>> open_sparse(const ImageToOpen& image, const FoundFooter& found) {
  SparseImage sparse;
  sparse.footer = found.footer;
  sparse.data_end = found.data_end;
  sparse.header = TRY(read_dynamic_header(*image.source, found));
  const DynamicHeader& header = sparse.header;
  sparse.size =
      TRY(disk_size(found.footer, uint64_t{header.max_table_entries} * header.block_size, image));
  sparse.metadata = {{.offset = 0, .length = kFooterBytes},
                     {.offset = found.footer.data_offset, .length = kDynamicHeaderBytes},
                     {.offset = header.table_offset, .length = header.table_bytes()}};
  if (found.footer.disk_type == kTypeDifferencing) {
    sparse.parent = TRY(parent_link(sparse, image));
    sparse.batmap = TRY(find_batmap(sparse, image));
  }
  if (sparse.batmap) {
    sparse.metadata.push_back(
        {.offset = sparse.batmap->batmap_offset, .length = sparse.batmap->batmap_bytes});
  }
  auto reader = std::make_unique<SparseReader>(image.source, std::move(sparse), image.caches);
  if (header.table_bytes() <= kMaxTableToCheck) TRY(reader->check_table());
  return reader;
}

}  // namespace
}  // namespace vhd

ProbeResult probe_vhd(const ProbeInput& input) {
  const auto found = vhd::find_footer(input.head, input.tail, input.size);
  if (found) return {.verdict = ProbeVerdict::kYes, .reason = ""};
  if (found.error().kind == ErrorKind::kNotFound) return {};
  return {.verdict = ProbeVerdict::kDamaged, .reason = found.error().message};
}

Result<bool> set_vhd_option(ImageOptions& options, std::string_view key, std::string_view value) {
  if (key != "force_size_calc") return false;
  TRY(check_one_of(key, value, {"auto", "chs", "current_size"}));
  options.vhd_size = vhd::VhdSize::kByCreator;
  if (value == "chs") options.vhd_size = vhd::VhdSize::kChs;
  if (value == "current_size") options.vhd_size = vhd::VhdSize::kCurrentSize;
  return true;
}

Result<std::unique_ptr<Reader>> open_vhd(const ImageToOpen& image) {
  const vhd::FoundFooter found = TRY(vhd::read_footer(*image.source));
  image.warnings.insert(image.warnings.end(), found.warnings.begin(), found.warnings.end());
  if (found.footer.is_sparse()) return vhd::open_sparse(image, found);
  if (found.footer.disk_type != vhd::kTypeFixed) {
    return fail(ErrorKind::kUnsupported,
                "disk_type {} is none of fixed ({}), dynamic ({}), differencing ({})",
                found.footer.disk_type, vhd::kTypeFixed, vhd::kTypeDynamic, vhd::kTypeDifferencing);
  }
  const uint64_t size = TRY(vhd::disk_size(found.footer, found.data_end, image));
  return std::make_unique<vhd::FixedReader>(image.source, size, found.footer.unique_id);
}

}  // namespace underlay
