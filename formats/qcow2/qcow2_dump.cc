#include "formats/qcow2/qcow2_dump.h"

#include "formats/encryption/luks_layout.h"
#include "formats/inspection/structure_dump.h"
#include "formats/qcow2/qcow2_bitmap_directory.h"
#include "formats/qcow2/qcow2_dump_tables.h"
#include "formats/qcow2/qcow2_encryption.h"
#include "formats/qcow2/qcow2_findings.h"
#include "formats/qcow2/qcow2_snapshot_table.h"
#include "formats/qcow2/qcow2_structures.h"

namespace underlay {
namespace {

// "dirty bit, bit 40 (unnamed)".
std::string features_meaning(ByteSpan names, Qcow2FeatureKind kind, uint64_t bits) {
  std::string text;
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((bits >> bit & 1) == 0) continue;
    const std::string_view name = qcow2_feature_label(names, kind, bit);
    if (!text.empty()) text += ", ";
    text += name.empty() ? fmt::format("bit {}", bit) : std::string(name);
  }
  return text;
}

std::string_view crypt_method_meaning(uint32_t method) {
  if (method == Qcow2Header::kNotEncrypted) return "none";
  if (method == Qcow2Header::kAes) return "AES";
  return method == Qcow2Header::kLuks ? "LUKS" : "not known";
}

std::string_view extension_meaning(uint32_t type) {
  switch (type) {
    case Qcow2Extension::kBackingFormat:
      return "backing file format name";
    case Qcow2Extension::kDataFile:
      return "external data file name";
    case Qcow2Extension::kFeatureNames:
      return "feature name table";
    case Qcow2Extension::kBitmaps:
      return "bitmaps extension";
    case Qcow2Extension::kEncryption:
      return "full disk encryption header pointer";
    default:
      return "not known";
  }
}

std::string bitmap_flags_meaning(uint32_t flags) {
  const bool in_use = (flags & Qcow2BitmapEntry::kInUse) != 0;
  const bool is_auto = (flags & Qcow2BitmapEntry::kAuto) != 0;
  return fmt::format("{}{}{}", in_use ? "in use" : "", in_use && is_auto ? ", " : "",
                     is_auto ? "auto" : "");
}

void dump_version_3_fields(StructureDump& dump, ByteSpan names) {
  const auto features = [&](std::string_view name, size_t at, Qcow2FeatureKind kind) {
    dump.number<uint64_t>(name, at, features_meaning(names, kind, dump.load<uint64_t>(at)));
  };
  features("incompatible_features", 72, Qcow2FeatureKind::kIncompatible);
  features("compatible_features", 80, Qcow2FeatureKind::kCompatible);
  features("autoclear_features", 88, Qcow2FeatureKind::kAutoclear);
  dump.number<uint32_t>("refcount_order", 96);
  dump.number<uint32_t>("header_length", 100);
}

void dump_header(StructureDump& dump, const Qcow2Header& header, ByteSpan names, size_t bytes) {
  dump.number<uint32_t>("magic", 0);
  dump.number<uint32_t>("version", 4);
  dump.number<uint64_t>("backing_file_offset", 8);
  dump.number<uint32_t>("backing_file_size", 16);
  dump.number<uint32_t>(
      "cluster_bits", 20,
      header.cluster_bits < 64 ? fmt::format("clusters of {} bytes", header.cluster_size()) : "");
  dump.number<uint64_t>("size", 24);
  dump.number<uint32_t>("crypt_method", 32, crypt_method_meaning(header.crypt_method));
  dump.number<uint32_t>("l1_size", 36);
  dump.number<uint64_t>("l1_table_offset", 40);
  dump.number<uint64_t>("refcount_table_offset", 48);
  dump.number<uint32_t>("refcount_table_clusters", 56);
  dump.number<uint32_t>("nb_snapshots", 60);
  dump.number<uint64_t>("snapshots_offset", 64);
  if (header.version < 3) return;
  dump_version_3_fields(dump, names);
  if (header.header_length > 104 && bytes > 104) {
    dump.number<uint8_t>("compression_type", 104,
                         header.compression_type > 1 ? "not known"
                         : header.compression_type   ? "zstd"
                                                     : "zlib");
  }
}

class Qcow2Dump {
 public:
  Qcow2Dump(const Source& file, const Qcow2Header& header, DumpSink& sink)
      : file_(file), header_(header), sink_(sink), tables_(file, header, sink) {}

  Result<void> run() {
    for (const Qcow2HeaderRule& rule : qcow2_header_rules()) {
      if (rule.is_basis && !rule.check(header_)) return dump_fixed_header();
    }
    first_cluster_ = TRY(read_front(file_, header_.cluster_size()));
    take_extensions();
    TRY(dump_fixed_header());
    TRY(dump_extensions());
    TRY(dump_backing_name());
    TRY(tables_.dump_active());
    TRY(tables_.dump_refcounts());
    TRY(dump_snapshots());
    TRY(dump_luks_header());
    return dump_bitmaps();
  }

 private:
  // Those before the first damaged one.
  void take_extensions() {
    Qcow2ExtensionWalk walk(header_, first_cluster_);
    while (true) {
      const auto extension = walk.next();
      if (!extension || !*extension) return;
      (void)take_qcow2_extension(**extension, extensions_);
    }
  }

  Result<void> dump_fixed_header() {
    const auto head = TRY(read_front(file_, Qcow2Header::kKnownBytes));
    const size_t known = header_.version < 3 ? Qcow2Header::kVersion2Bytes
                         : header_.header_length > Qcow2Header::kVersion3Bytes
                             ? head.size()
                             : Qcow2Header::kVersion3Bytes;
    const ByteSpan bytes = ByteSpan(head).first(std::min(known, head.size()));
    StructureDump dump(sink_, "header", 0, bytes, ByteOrder::kBig);
    dump_header(dump, header_, extensions_.feature_names, bytes.size());
    return dump.done();
  }

  Result<void> dump_extensions() {
    Qcow2ExtensionWalk walk(header_, first_cluster_);
    while (true) {
      const auto extension = walk.next();
      if (!extension || !*extension) return {};
      TRY(dump_extension(**extension));
    }
  }

  Result<void> dump_extension(const Qcow2Extension& extension) {
    const auto at = static_cast<size_t>(extension.offset);
    const ByteSpan bytes = ByteSpan(first_cluster_).subspan(at, 8 + extension.data.size());
    StructureDump dump(sink_, "header extension", extension.offset, bytes, ByteOrder::kBig);
    dump.number<uint32_t>("type", 0, extension_meaning(extension.type));
    dump.number<uint32_t>("length", 4);
    const size_t length = extension.data.size();
    const uint32_t type = extension.type;
    if (type == Qcow2Extension::kFeatureNames) {
      dump_feature_names(dump, length);
    } else if (type == Qcow2Extension::kBitmaps && length >= 24) {
      dump.number<uint32_t>("nb_bitmaps", 8);
      dump.number<uint32_t>("reserved", 12);
      dump.number<uint64_t>("bitmap_directory_size", 16);
      dump.number<uint64_t>("bitmap_directory_offset", 24);
    } else if (type == Qcow2Extension::kEncryption && length >= 16) {
      dump.number<uint64_t>("offset", 8);
      dump.number<uint64_t>("length", 16);
    } else if (length != 0) {
      dump.text("data", 8, length);
    }
    return dump.done();
  }

  static void dump_feature_names(StructureDump& dump, size_t length) {
    constexpr size_t kEntryBytes = 48;
    for (size_t at = 8; at + kEntryBytes <= 8 + length; at += kEntryBytes) {
      dump.number<uint8_t>("feature_type", at);
      dump.number<uint8_t>("bit", at + 1);
      dump.text("name", at + 2, kEntryBytes - 2);
    }
  }

  Result<void> dump_backing_name() {
    const auto rule = parse_qcow2_backing_name(header_, first_cluster_);
    if (!rule || !*rule) return {};
    const std::string_view name = **rule;
    TRY(sink_.begin("backing file name", header_.backing_file_offset, name.size()));
    return sink_.field("backing_file_name", header_.backing_file_offset, name.size(), name, "");
  }

  Result<void> dump_snapshots() {
    if (header_.nb_snapshots > Qcow2Header::kMaxSnapshots) return {};
    uint32_t number = 0;
    for (Qcow2SnapshotTable table(file_, header_); !table.at_end(); ++number) {
      const auto entry = table.next();
      if (!entry) return {};
      const std::string label = fmt::format("snapshot {}", number);
      TRY(dump_snapshot(label, *entry));
      const Qcow2L1 l1{.offset = entry->fixed.l1_table_offset, .entries = entry->fixed.l1_size};
      if (l1.bytes() <= Qcow2Header::kMaxL1Bytes) TRY(tables_.dump_snapshot(label, l1));
    }
    return {};
  }

  Result<void> dump_snapshot(const std::string& label, const Qcow2SnapshotEntry& entry) {
    std::vector<std::byte> bytes(Qcow2Snapshot::kFixedBytes + entry.fixed.variable_bytes());
    TRY(file_.read_at(entry.offset, bytes));
    StructureDump dump(sink_, label, entry.offset, bytes, ByteOrder::kBig);
    dump.number<uint64_t>("l1_table_offset", 0);
    dump.number<uint32_t>("l1_size", 8);
    dump.number<uint16_t>("id_bytes", 12);
    dump.number<uint16_t>("name_bytes", 14);
    dump.number<uint32_t>("date_sec", 16);
    dump.number<uint32_t>("date_nsec", 20);
    dump.number<uint64_t>("vm_clock_nsec", 24);
    dump.number<uint32_t>("vm_state_size", 32);
    dump.number<uint32_t>("extra_bytes", 36);
    size_t at = Qcow2Snapshot::kFixedBytes;
    if (entry.extra.size() >= 8) dump.number<uint64_t>("vm_state_size_large", at);
    if (entry.extra.size() >= 16) dump.number<uint64_t>("disk_size", at + 8);
    if (entry.extra.size() >= 24) dump.number<uint64_t>("icount", at + 16);
    at += entry.extra.size();
    if (!entry.id.empty()) dump.text("id", at, entry.id.size());
    if (!entry.name.empty()) dump.text("name", at + entry.id.size(), entry.name.size());
    return dump.done();
  }

  Result<void> dump_luks_header() {
    if (header_.crypt_method != Qcow2Header::kLuks) return {};
    const auto range = parse_qcow2_luks_pointer(header_, extensions_.encryption);
    if (!range || !range_within(range->offset, LuksHeader::kBytes, file_.size())) return {};
    std::vector<std::byte> bytes(LuksHeader::kBytes);
    TRY(file_.read_at(range->offset, bytes));
    StructureDump dump(sink_, "LUKS header", range->offset, bytes, ByteOrder::kBig);
    dump.number<uint16_t>("version", 6);
    dump.text("cipher-name", 8, 32);
    dump.text("cipher-mode", 40, 32);
    dump.text("hash-spec", 72, 32);
    dump.number<uint32_t>("payload-offset", 104, "sectors");
    dump.number<uint32_t>("key-bytes", 108);
    dump.number<uint32_t>("mk-digest-iter", 164);
    dump.text("uuid", 168, 40);
    for (size_t slot = 0; slot < LuksHeader::kSlots; ++slot) {
      const size_t at = 208 + slot * 48;
      const std::string key = fmt::format("key-slot-{} ", slot + 1);
      dump.number<uint32_t>(key + "active", at,
                            dump.load<uint32_t>(at) == 0x00ac71f3 ? "in use" : "free");
      dump.number<uint32_t>(key + "iterations", at + 4);
      dump.number<uint32_t>(key + "key-material-offset", at + 40, "sectors");
      dump.number<uint32_t>(key + "stripes", at + 44);
    }
    return dump.done();
  }

  Result<void> dump_bitmaps() {
    if (extensions_.bitmaps.empty()) return {};
    const auto extension = parse_qcow2_bitmaps_extension(header_, extensions_.bitmaps);
    if (!extension || !range_within(extension->bitmap_directory_offset,
                                    extension->bitmap_directory_size, file_.size())) {
      return {};
    }
    uint32_t number = 0;
    for (Qcow2BitmapDirectory directory(file_, *extension); !directory.at_end(); ++number) {
      const auto item = directory.next();
      if (!item) return {};
      TRY(dump_bitmap(fmt::format("bitmap {}", number), *item));
    }
    return {};
  }

  Result<void> dump_bitmap(const std::string& label, const Qcow2BitmapDirectory::Item& item) {
    const Qcow2BitmapEntry& entry = item.entry;
    std::vector<std::byte> bytes(Qcow2BitmapEntry::kFixedBytes + entry.variable_bytes());
    TRY(file_.read_at(item.offset, bytes));
    StructureDump dump(sink_, label, item.offset, bytes, ByteOrder::kBig);
    dump.number<uint64_t>("bitmap_table_offset", 0);
    dump.number<uint32_t>("bitmap_table_size", 8);
    dump.number<uint32_t>("flags", 12, bitmap_flags_meaning(entry.flags));
    dump.number<uint8_t>("type", 16);
    dump.number<uint8_t>("granularity_bits", 17);
    dump.number<uint16_t>("name_size", 18);
    dump.number<uint32_t>("extra_data_size", 20);
    dump.text("name", Qcow2BitmapEntry::kFixedBytes + entry.extra_data_size, entry.name_size);
    TRY(dump.done());
    if (entry.bitmap_table_size > Qcow2BitmapEntry::kMaxBitmapBytes / header_.cluster_size())
      return {};
    return tables_.dump_bitmap_table(label, entry.bitmap_table_offset, entry.table_bytes());
  }

  const Source& file_;
  const Qcow2Header& header_;
  DumpSink& sink_;
  Qcow2TableDump tables_;
  std::vector<std::byte> first_cluster_;
  Qcow2Extensions extensions_;
};

}  // namespace

Result<void> dump_qcow2(const FileToInspect& image, DumpSink& sink) {
  const auto head = TRY(read_front(*image.source, Qcow2Header::kKnownBytes));
  const Qcow2Header header = TRY(load_qcow2_header(head));
  if (header.version < 2) {
    return fail(ErrorKind::kUnsupported, "version is {}: no qcow2; version 1 is -f qcow",
                header.version);
  }
  return Qcow2Dump(*image.source, header, sink).run();
}

}  // namespace underlay
