#include "formats/vhd.h"

#include <algorithm>

#include "formats/option_values.h"
#include "formats/vhd_batmap.h"
#include "formats/vhd_blocks.h"
#include "formats/vhd_footer.h"
#include "formats/vhd_parent.h"
#include "formats/vhd_reader.h"

namespace underlay {
namespace vhd {
namespace {

using VhdSize = ImageOptions::VhdSize;

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

Result<DynamicHeader> read_dynamic_header(const Source& source, const Footer& footer,
                                          uint64_t data_end) {
  const uint64_t at = footer.data_offset;
  if (at < kFooterBytes || !is_aligned(at, kSectorBytes) ||
      !range_within(at, kDynamicHeaderBytes, data_end)) {
    return fail(ErrorKind::kMalformed,
                "the dynamic disk header at data_offset {} does not lie in whole sectors between "
                "the copy of the footer and byte {}",
                at, data_end);
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
  if (!range_within(header->table_offset, header->table_bytes(), data_end)) {
    return fail(ErrorKind::kTruncated,
                "the BAT of {} entries at table_offset {} reaches beyond byte {}: the file is "
                "truncated or damaged",
                header->max_table_entries, header->table_offset, data_end);
  }
  return header;
}

Result<ParentLink> parent_link(const SparseImage& sparse, const ImageToOpen& image) {
  const ByteOrder unmarked = sparse.footer.is_by_tapdisk01() ? ByteOrder::kLittle : ByteOrder::kBig;
  ParentLink link;
  link.names =
      TRY(parent_names(sparse.header, *image.source, sparse.data_end, unmarked, image.warnings));
  link.format = "vpc";
  link.options.vhd_size = VhdSize::kLargest;
  link.identity = to_string(sparse.header.parent_unique_id);
  if (!is_null(sparse.header.parent_unique_id)) return link;
  if (!sparse.footer.is_by_tapdisk()) {
    return fail(ErrorKind::kUnsupported,
                "is a differencing image of creator \"{}\" whose parent_unique_id is null: only of "
                "tapdisk's does that say what the parent is (a raw disk)",
                printable(sparse.footer.creator()));
  }
  link.format = kRawFormat;
  link.identity = "";
  image.warnings.push_back(
      "parent_unique_id is null, so its parent is a raw disk: that it is the right one cannot be "
      "checked");
  return link;
}

// The places of the headers, the BAT and the parent locators.
void add_metadata(SparseImage& sparse) {
  const DynamicHeader& header = sparse.header;
  sparse.add_metadata({.offset = 0, .length = kFooterBytes});
  sparse.add_metadata({.offset = sparse.footer.data_offset, .length = kDynamicHeaderBytes});
  sparse.add_metadata({.offset = header.table_offset, .length = header.table_bytes()});
  if (sparse.footer.disk_type != kTypeDifferencing) return;
  for (const ParentLocator& locator : header.locators) {
    if (!locator.is_used()) continue;
    if (!range_within(locator.data_offset, locator.data_length, sparse.data_end)) continue;
    sparse.add_metadata({.offset = locator.data_offset, .length = locator.data_length});
  }
}

Result<SparseImage> read_structures(const Footer& footer, uint64_t data_end,
                                    const ImageToOpen& image) {
  SparseImage sparse;
  sparse.footer = footer;
  sparse.data_end = data_end;
  sparse.header = TRY(read_dynamic_header(*image.source, footer, data_end));
  sparse.size = TRY(disk_size(
      footer, uint64_t{sparse.header.max_table_entries} * sparse.header.block_size, image));
  add_metadata(sparse);
  TRY(find_batmap(sparse, image));
  if (footer.disk_type == kTypeDifferencing) sparse.parent = TRY(parent_link(sparse, image));
  return sparse;
}

// The footer behind the last block, when that is where the copy at 0 says that the image ends.
Result<std::optional<FoundFooter>> footer_behind_blocks(const ImageToOpen& image,
                                                        const FoundFooter& found) {
  const Source& source = *image.source;
  std::vector<std::string> unheard;
  const ImageToOpen attempt{.source = image.source,
                            .path = image.path,
                            .files = image.files,
                            .caches = image.caches,
                            .options = image.options,
                            .warnings = unheard};
  const auto sparse = read_structures(*found.copy, source.size(), attempt);
  if (!sparse) {
    if (sparse.error().kind == ErrorKind::kIo) return Failure(sparse.error());
    return std::nullopt;
  }
  const auto end = TRY(end_of_blocks(*sparse, source));
  if (!end || !range_within(*end, kFooterBytes, source.size())) return std::nullopt;
  std::array<std::byte, kFooterBytes> bytes;
  TRY(source.read_at(*end, bytes));
  return settled_by_footer_at(*end, bytes, source.size(), found);
}

Result<FoundFooter> settled(const ImageToOpen& image, const FoundFooter& found) {
  if (!found.copy) return found;
  auto behind = TRY(footer_behind_blocks(image, found));
  if (behind) return *std::move(behind);
  if (!found.is_rival) return found;
  return fail(
      ErrorKind::kMalformed,
      "the trailing footer is of image {}, but the copy at byte 0 of image {}, and no footer "
      "lies behind that one's blocks: write the right one to both places",
      to_string(found.footer.unique_id), to_string(found.copy->unique_id));
}

Result<std::unique_ptr<Reader>> open_sparse(const ImageToOpen& image, const FoundFooter& found) {
  const FoundFooter footer = TRY(settled(image, found));
  image.warnings.insert(image.warnings.end(), footer.warnings.begin(), footer.warnings.end());
  SparseImage sparse = TRY(read_structures(footer.footer, footer.data_end, image));
  TRY(check_blocks(sparse, *image.source));
  return std::make_unique<SparseReader>(image.source, std::move(sparse), image.caches);
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
  if (found.footer.is_sparse()) return vhd::open_sparse(image, found);
  if (found.footer.disk_type != vhd::kTypeFixed) {
    return fail(ErrorKind::kUnsupported,
                "disk_type {} is none of fixed ({}), dynamic ({}), differencing ({})",
                found.footer.disk_type, vhd::kTypeFixed, vhd::kTypeDynamic, vhd::kTypeDifferencing);
  }
  image.warnings.insert(image.warnings.end(), found.warnings.begin(), found.warnings.end());
  const uint64_t size = TRY(vhd::disk_size(found.footer, found.data_end, image));
  return std::make_unique<vhd::FixedReader>(image.source, size, found.footer.unique_id);
}

}  // namespace underlay
