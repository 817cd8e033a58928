#include "formats/vhd/vhd_structures.h"

#include <algorithm>
#include <cstring>

#include "formats/format_table.h"
#include "formats/vhd/vhd_batmap.h"

namespace underlay::vhd {
namespace {

using VhdSize = ImageOptions::VhdSize;

Result<FoundFooter> read_footer(const Source& source, Defects& defects) {
  std::vector<std::byte> head(std::min<uint64_t>(source.size(), kFooterBytes));
  std::vector<std::byte> tail(head.size());
  TRY(source.read_at(0, head));
  TRY(source.read_at(source.size() - tail.size(), tail));
  auto found = find_footer(head, tail, source.size(), defects);
  if (!found && found.error().kind == ErrorKind::kNotFound) {
    found.error().kind = ErrorKind::kMalformed;
    return with_context(std::move(found).error(), "is no VHD, or was truncated: ");
  }
  return found;
}

// nullopt: there is none, which is a defect.
Result<std::optional<DynamicHeader>> read_dynamic_header(const Source& source, uint64_t at,
                                                         uint64_t data_end, Defects& defects) {
  if (at < kFooterBytes || !is_aligned(at, kSectorBytes) ||
      !range_within(at, kDynamicHeaderBytes, data_end)) {
    defects.add("header-misplaced",
                fail(ErrorKind::kMalformed,
                     "the dynamic disk header at data_offset {} does not lie in whole sectors "
                     "between the copy of the footer and byte {}",
                     at, data_end));
    return std::nullopt;
  }
  std::array<std::byte, kDynamicHeaderBytes> bytes;
  TRY(source.read_at(at, bytes));
  Defects here;
  auto header = parse_dynamic_header(bytes, here);
  for (const Defect& defect : here) {
    defects.add(defect.code, in_file(defect.error, source.name(), at));
  }
  return header;
}

void check_table(const DynamicHeader& header, uint64_t header_at, uint64_t data_end,
                 Defects& defects) {
  const uint64_t free_from = header_at + kDynamicHeaderBytes;
  const bool before_header = range_within(header.table_offset, header.table_bytes(), header_at);
  if (header.table_offset < kFooterBytes || (header.table_offset < free_from && !before_header)) {
    defects.add("table-in-headers",
                fail(ErrorKind::kMalformed, "the BAT at table_offset {} overlaps the headers",
                     header.table_offset));
  }
  if (!range_within(header.table_offset, header.table_bytes(), data_end)) {
    defects.add("table-beyond-end",
                fail(ErrorKind::kTruncated,
                     "the BAT of {} entries at table_offset {} reaches beyond byte {}: the file is "
                     "truncated or damaged",
                     header.max_table_entries, header.table_offset, data_end));
  }
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

ParentLink parent_link(const Structures& structures, Defects& defects, Remarks& remarks) {
  const SparseImage& sparse = structures.sparse;
  std::vector<std::string> warnings;
  ParentLink link;
  link.names =
      parent_names(sparse.header, structures.locators, unmarked_order(sparse.footer), warnings);
  add_remarks(remarks, "parent-locator-unusable", std::move(warnings));
  link.format = "vpc";
  link.options.vhd_size = VhdSize::kLargest;
  link.identity = to_string(sparse.header.parent_unique_id);
  if (!is_null(sparse.header.parent_unique_id)) return link;
  if (!sparse.footer.is_by_tapdisk()) {
    defects.add("parent-id-missing",
                fail(ErrorKind::kUnsupported,
                     "is a differencing image of creator \"{}\" whose parent_unique_id is null: "
                     "only of tapdisk's does that say what the parent is (a raw disk)",
                     printable(sparse.footer.creator())));
  }
  link.format = kRawFormat;
  link.identity = "";
  remarks.push_back(
      {.code = "parent-unidentified",
       .text = "parent_unique_id is null, so its parent is a raw disk: that it is the right one "
               "cannot be checked"});
  return link;
}

// What there is of a sparse image by `found`, beside its footer.
Result<Structures> read_sparse(const Source& source, const FoundFooter& found, VhdSize asked) {
  Structures structures;
  Defects& defects = structures.defects;
  SparseImage& sparse = structures.sparse;
  structures.found = found;
  sparse.footer = found.footer;
  sparse.data_end = found.data_end;
  const auto header =
      TRY(read_dynamic_header(source, found.footer.data_offset, found.data_end, defects));
  if (!header) {
    structures.size = disk_size(found.footer, UINT64_MAX, asked);
    sparse.size = structures.size.bytes;
    return structures;
  }
  structures.has_header = true;
  sparse.header = *header;
  check_table(sparse.header, found.footer.data_offset, found.data_end, defects);
  const uint64_t capacity = uint64_t{sparse.header.max_table_entries} * sparse.header.block_size;
  structures.size = disk_size(found.footer, capacity, asked);
  sparse.size = structures.size.bytes;
  find_size_defects(structures.size, found.footer, capacity, defects, structures.remarks);
  structures.has_places = defects.empty();  // wrong numbers would lead to other places
  if (structures.has_places) {
    add_metadata(sparse);
    TRY(find_batmap(sparse, source, defects, structures.remarks));
  }
  if (found.footer.disk_type != kTypeDifferencing) return structures;
  structures.locators = TRY(read_locators(sparse.header, source, sparse.data_end));
  sparse.parent = parent_link(structures, defects, structures.remarks);
  return structures;
}

// The footer behind the last block, when that is where the copy at 0 says that the image ends.
Result<std::optional<FoundFooter>> footer_behind_blocks(const Source& source,
                                                        const FoundFooter& found, VhdSize asked) {
  FoundFooter attempt = found;
  attempt.footer = *found.copy;
  attempt.data_end = source.size();
  const auto structures = read_sparse(source, attempt, asked);
  if (!structures) {
    if (structures.error().kind == ErrorKind::kIo) return Failure(structures.error());
    return std::nullopt;
  }
  if (!structures->defects.empty()) return std::nullopt;
  const auto end = TRY(end_of_blocks(structures->sparse, source));
  if (!end || !range_within(*end, kFooterBytes, source.size())) return std::nullopt;
  std::array<std::byte, kFooterBytes> bytes;
  TRY(source.read_at(*end, bytes));
  return settled_by_footer_at(*end, bytes, source.size(), found);
}

Result<FoundFooter> settled(const Source& source, const FoundFooter& found, VhdSize asked,
                            Defects& defects) {
  if (!found.copy) return found;
  auto behind = TRY(footer_behind_blocks(source, found, asked));
  if (behind) return *std::move(behind);
  if (found.is_rival) {
    defects.add(
        "footers-of-two-images",
        fail(ErrorKind::kMalformed,
             "the trailing footer is of image {}, but the copy at byte 0 of image {}, and no "
             "footer lies behind that one's blocks: write the right one to both places",
             to_string(found.footer.unique_id), to_string(found.copy->unique_id)));
  }
  return found;
}

// Does the footer, which no guest can write to, name the header of a sparse image?
Result<bool> names_dynamic_header(const Footer& footer, const Source& source, uint64_t data_end) {
  std::array<std::byte, kHeaderCookie.size()> bytes;
  if (!range_within(footer.data_offset, bytes.size(), data_end)) return false;
  TRY(source.read_at(footer.data_offset, bytes));
  return std::memcmp(bytes.data(), kHeaderCookie.data(), bytes.size()) == 0;
}

Result<Structures> without_blocks(const FoundFooter& found, const Source& source, VhdSize asked) {
  Structures structures;
  structures.found = found;
  structures.size = disk_size(found.footer, found.data_end, asked);
  if (found.footer.disk_type == kTypeFixed) {
    find_size_defects(structures.size, found.footer, found.data_end, structures.defects,
                      structures.remarks);
    if (TRY(names_dynamic_header(found.footer, source, found.data_end))) {
      structures.defects.add(
          "fixed-with-header",
          fail(ErrorKind::kMalformed,
               "disk_type says a fixed disk, but data_offset {} names the header "
               "of a dynamic one: its tables would be shown as the disk's bytes",
               found.footer.data_offset));
    }
    return structures;
  }
  structures.defects.add("type-unsupported",
                         fail(ErrorKind::kUnsupported,
                              "disk_type {} is none of fixed ({}), dynamic ({}), differencing ({})",
                              found.footer.disk_type, kTypeFixed, kTypeDynamic, kTypeDifferencing));
  return structures;
}

}  // namespace

Result<Structures> read_structures(const Source& source, VhdSize asked) {
  Defects of_footers;
  FoundFooter found = TRY(read_footer(source, of_footers));
  Structures structures;
  if (found.footer.is_sparse()) {
    found = TRY(settled(source, found, asked, of_footers));
    structures = TRY(read_sparse(source, found, asked));
  } else {
    structures = TRY(without_blocks(found, source, asked));
  }
  of_footers.add(std::move(structures.defects));
  structures.defects = std::move(of_footers);
  structures.remarks.insert(structures.remarks.begin(), found.remarks.begin(), found.remarks.end());
  return structures;
}

Result<FooterDetails> read_footer_details(const Source& source, uint64_t at) {
  std::array<std::byte, kFooterBytes> bytes{};
  const auto length = static_cast<size_t>(std::min<uint64_t>(source.size() - at, bytes.size()));
  TRY(source.read_at(at, MutableByteSpan(bytes).first(length)));
  return footer_details(bytes);
}

}  // namespace underlay::vhd
