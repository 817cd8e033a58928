#include "formats/qcow2/qcow2_dump_tables.h"

#include <algorithm>

#include "formats/inspection/structure_dump.h"
#include "formats/inspection/table_reader.h"
#include "formats/qcow2/qcow2_bitmap_layout.h"
#include "formats/qcow2/qcow2_entries.h"
#include "formats/qcow2/qcow2_refcounts.h"

namespace underlay {
namespace {

using Json = nlohmann::ordered_json;

std::string l1_meaning(uint64_t word) {
  if (word == 0) return "";
  const Qcow2L1Bits bits = split_qcow2_l1_entry(word);
  return fmt::format("L2 table at {}{}{}", bits.offset, bits.copied ? ", copied" : "",
                     bits.reserved != 0 ? ", reserved bits" : "");
}

std::string l2_meaning(const Qcow2Header& header, uint64_t word, uint64_t bitmap) {
  if (word == 0 && bitmap == 0) return "";
  const Qcow2L2Bits bits = split_qcow2_l2_entry(header, word, bitmap);
  const std::string flags = fmt::format("{}{}", bits.copied ? ", copied" : "",
                                        bits.reserved != 0 ? ", reserved bits" : "");
  if (bits.compressed) {
    return fmt::format("compressed, {} bytes at {}{}", bits.stored_length, bits.offset, flags);
  }
  const std::string place =
      has_place(header, bits) ? fmt::format("cluster at {}", bits.offset) : "no cluster";
  if (header.extended_l2()) {
    return fmt::format("{}{}, stored {:#x}, zeros {:#x}", place, flags, bits.stored_parts(),
                       bits.zero_parts());
  }
  return place + flags + (bits.zeros ? ", zeros" : "");
}

std::string refcount_table_meaning(uint64_t word) {
  if (word == 0) return "";
  const Qcow2RefcountTableBits bits = split_qcow2_refcount_table_entry(word);
  return fmt::format("refcount block at {}{}", bits.offset,
                     bits.reserved != 0 ? ", reserved bits" : "");
}

std::string bitmap_meaning(const Qcow2Header& header, uint64_t word) {
  const auto cluster = parse_qcow2_bitmap_table_entry(header, word);
  if (!cluster) return "damaged";
  if (cluster->host_offset != 0) return fmt::format("bits at {}", cluster->host_offset);
  return cluster->value ? "all ones" : "all zeros";
}

}  // namespace

Result<void> Qcow2TableDump::dump_active() {
  const Qcow2L1 l1{
      .offset = header_.l1_table_offset, .entries = header_.l1_size, .disk_size = header_.size};
  TRY(dump_l1("L1 table", l1));
  return dump_l2_tables("L2 table", l1, /*is_active=*/true);
}

Result<void> Qcow2TableDump::dump_snapshot(const std::string& label, const Qcow2L1& l1) {
  TRY(dump_l1(label + " L1 table", l1));
  return dump_l2_tables(label + " L2 table", l1, /*is_active=*/false);
}

Result<void> Qcow2TableDump::dump_l1(const std::string& name, const Qcow2L1& l1) {
  TRY(sink_.begin(name, l1.offset, l1.bytes()));
  if (!sink_.wants_fields(name)) return {};
  return for_each_word(file_, {.offset = l1.offset, .length = l1.bytes()},
                       [&](uint64_t index, uint64_t at, uint64_t word) {
                         return sink_.field(entry_name(index), at, 8, word, l1_meaning(word));
                       });
}

Result<void> Qcow2TableDump::dump_l2_tables(const std::string& of, const Qcow2L1& l1,
                                            bool is_active) {
  return for_each_word(file_, {.offset = l1.offset, .length = l1.bytes()},
                       [&](uint64_t index, uint64_t, uint64_t word) -> Result<void> {
                         const uint64_t offset = split_qcow2_l1_entry(word).offset;
                         if (offset == 0) return {};
                         if (!is_active && TRY(is_active_too(index, word))) return {};
                         return dump_l2(fmt::format("{} {}", of, index), offset);
                       });
}

Result<bool> Qcow2TableDump::is_active_too(uint64_t index, uint64_t entry) const {
  const uint64_t at = header_.l1_table_offset + index * 8;
  if (index >= header_.l1_size || !range_within(at, 8, file_.size())) return false;
  std::array<std::byte, 8> word;
  TRY(file_.read_at(at, word));
  return split_qcow2_l1_entry(load_be<uint64_t>(word, 0)).offset ==
         split_qcow2_l1_entry(entry).offset;
}

Result<void> Qcow2TableDump::dump_l2(const std::string& name, uint64_t offset) {
  TRY(sink_.begin(name, offset, header_.cluster_size()));
  if (!sink_.wants_fields(name)) return {};
  if (!header_.extended_l2()) {
    return for_each_word(file_, {.offset = offset, .length = header_.cluster_size()},
                         [&](uint64_t index, uint64_t at, uint64_t word) {
                           return sink_.field(entry_name(index), at, 8, word,
                                              l2_meaning(header_, word, 0));
                         });
  }
  uint64_t first = 0;  // half of the entry
  return for_each_word(file_, {.offset = offset, .length = header_.cluster_size()},
                       [&](uint64_t index, uint64_t at, uint64_t word) -> Result<void> {
                         if (index % 2 == 0) {
                           first = word;
                           return {};
                         }
                         return sink_.field(entry_name(index / 2), at - 8, 16,
                                            Json::array({first, word}),
                                            l2_meaning(header_, first, word));
                       });
}

Result<void> Qcow2TableDump::dump_refcounts() {
  if (!Qcow2Refcounts::check_header(header_)) return {};
  const FileRange table{.offset = header_.refcount_table_offset,
                        .length = Qcow2Refcounts::table_bytes(header_)};
  constexpr std::string_view kName = "refcount table";
  TRY(sink_.begin(kName, table.offset, table.length));
  if (sink_.wants_fields(kName)) {
    TRY(for_each_word(file_, table, [&](uint64_t index, uint64_t at, uint64_t word) {
      return sink_.field(entry_name(index), at, 8, word, refcount_table_meaning(word));
    }));
  }
  return for_each_word(file_, table, [&](uint64_t index, uint64_t, uint64_t word) -> Result<void> {
    const uint64_t offset = split_qcow2_refcount_table_entry(word).offset;
    if (offset == 0) return {};
    return dump_block(index, offset);
  });
}

// Refcounts of less than a byte are told byte by byte.
Result<void> Qcow2TableDump::dump_block(uint64_t index, uint64_t offset) {
  const std::string name = fmt::format("refcount block {}", index);
  TRY(sink_.begin(name, offset, header_.cluster_size()));
  if (!sink_.wants_fields(name)) return {};
  const uint32_t width = std::max(1u, (1u << header_.refcount_order) / 8);
  const uint64_t words = header_.cluster_size() / 8;
  return for_each_word(
      file_, {.offset = offset, .length = header_.cluster_size()},
      [&](uint64_t word_index, uint64_t at, uint64_t word) -> Result<void> {
        const uint64_t first = (index * words + word_index) * (8 / width);
        for (uint32_t i = 0; i < 8 / width; ++i) {
          const uint64_t value = word << (i * width * 8) >> (64 - width * 8);
          TRY(sink_.field(entry_name(first + i), at + i * width, width, value, ""));
        }
        return {};
      });
}

Result<void> Qcow2TableDump::dump_bitmap_table(const std::string& label, uint64_t offset,
                                               uint64_t bytes) {
  const std::string name = label + " table";
  TRY(sink_.begin(name, offset, bytes));
  if (!sink_.wants_fields(name)) return {};
  return for_each_word(
      file_, {.offset = offset, .length = bytes}, [&](uint64_t index, uint64_t at, uint64_t word) {
        return sink_.field(entry_name(index), at, 8, word, bitmap_meaning(header_, word));
      });
}

}  // namespace underlay
