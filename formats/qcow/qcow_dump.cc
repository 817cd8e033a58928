#include "formats/qcow/qcow_dump.h"

#include <algorithm>

#include "formats/inspection/structure_dump.h"
#include "formats/inspection/table_reader.h"
#include "formats/qcow/qcow.h"
#include "formats/qcow/qcow_layout.h"

namespace underlay {
namespace qcow {
namespace {

std::string l2_meaning(const Header& header, uint64_t guest_offset, uint64_t word) {
  const auto cluster = parse_l2_entry(header, guest_offset, word);
  if (!cluster) return "damaged";
  switch (cluster->kind) {
    case Cluster::Kind::kAbsent:
      return "";
    case Cluster::Kind::kPlain:
      return fmt::format("cluster at {}", cluster->offset);
    case Cluster::Kind::kDeflate:
      return fmt::format("compressed, {} bytes at {}", cluster->length, cluster->offset);
  }
  return "";
}

class Dump {
 public:
  Dump(const Source& file, const Header& header, DumpSink& sink)
      : file_(file), header_(header), sink_(sink) {}

  Result<void> run(ByteSpan head) {
    TRY(dump_header(head));
    for (const HeaderRule& rule : header_rules()) {
      // The tables of an encrypted image are as any.
      if (rule.name != "encryption" && !rule.check(header_)) return {};
    }
    TRY(dump_backing_name());
    TRY(dump_l1());
    return for_each_word(file_, {.offset = header_.l1_table_offset, .length = header_.l1_bytes()},
                         [&](uint64_t index, uint64_t, uint64_t word) -> Result<void> {
                           if (word == 0) return {};
                           return dump_l2(index, word);
                         });
  }

 private:
  Result<void> dump_header(ByteSpan head) {
    StructureDump dump(sink_, "header", 0, head, ByteOrder::kBig);
    dump.number<uint32_t>("magic", 0);
    dump.number<uint32_t>("version", 4);
    dump.number<uint64_t>("backing_file_offset", 8);
    dump.number<uint32_t>("backing_file_size", 16);
    dump.number<uint32_t>("mtime", 20, "of the backing file");
    dump.number<uint64_t>("size", 24);
    dump.number<uint8_t>("cluster_bits", 32);
    dump.number<uint8_t>("l2_bits", 33);
    dump.number<uint32_t>("crypt_method", 36,
                          header_.crypt_method == 0   ? "none"
                          : header_.crypt_method == 1 ? "AES"
                                                      : "not known");
    dump.number<uint64_t>("l1_table_offset", 40);
    return dump.done();
  }

  Result<void> dump_backing_name() {
    if (header_.backing_file_offset == 0) return {};
    const auto name = read_backing_name(header_, file_);
    if (!name) return {};
    TRY(sink_.begin("backing file name", header_.backing_file_offset, name->size()));
    return sink_.field("backing_file_name", header_.backing_file_offset, name->size(), *name, "");
  }

  Result<void> dump_l1() {
    constexpr std::string_view kName = "L1 table";
    TRY(sink_.begin(kName, header_.l1_table_offset, header_.l1_bytes()));
    if (!sink_.wants_fields(kName)) return {};
    return for_each_word(file_, {.offset = header_.l1_table_offset, .length = header_.l1_bytes()},
                         [&](uint64_t index, uint64_t at, uint64_t word) {
                           return sink_.field(entry_name(index), at, kEntryBytes, word,
                                              word == 0 ? "" : fmt::format("L2 table at {}", word));
                         });
  }

  Result<void> dump_l2(uint64_t l1_index, uint64_t offset) {
    const std::string name = fmt::format("L2 table {}", l1_index);
    TRY(sink_.begin(name, offset, header_.l2_bytes()));
    if (!sink_.wants_fields(name)) return {};
    const uint64_t start = l1_index * header_.l2_span();
    return for_each_word(file_, {.offset = offset, .length = header_.l2_bytes()},
                         [&](uint64_t index, uint64_t at, uint64_t word) {
                           return sink_.field(
                               entry_name(index), at, kEntryBytes, word,
                               l2_meaning(header_, start + index * header_.cluster_size(), word));
                         });
  }

  const Source& file_;
  const Header& header_;
  DumpSink& sink_;
};

}  // namespace
}  // namespace qcow

Result<void> dump_qcow(const FileToInspect& image, DumpSink& sink) {
  const Source& file = *image.source;
  std::vector<std::byte> head(std::min<uint64_t>(qcow::kHeaderBytes, file.size()));
  TRY(file.read_at(0, head));
  const qcow::Header header = TRY(qcow::load_header(head));
  return qcow::Dump(file, header, sink).run(head);
}

}  // namespace underlay
