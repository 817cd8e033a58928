#include "formats/qcow2/qcow2_describe.h"

#include "formats/encryption/luks_facts.h"
#include "formats/encryption/luks_layout.h"
#include "formats/inspection/image_facts.h"
#include "formats/qcow2/qcow2_bitmap_directory.h"
#include "formats/qcow2/qcow2_encryption.h"
#include "formats/qcow2/qcow2_findings.h"
#include "formats/qcow2/qcow2_snapshot_table.h"
#include "formats/qcow2/qcow2_structures.h"

namespace underlay {
namespace {

using Json = nlohmann::ordered_json;
using Kind = Finding::Kind;

// Each part of the image is understood as far as it can be; what cannot becomes a finding.
class Describer {
 public:
  Describer(const Source& file, const Qcow2Header& header) : file_(file), header_(header) {}

  ImageFacts describe() {
    take_header();
    const bool has_basis = find_in_qcow2_header(header_, facts_.findings);
    if (has_basis) take_first_cluster();
    take_specific(has_basis);
    return std::move(facts_);
  }

 private:
  void add(Kind kind, std::string code, const Error& error) {
    // What cannot be read is neither right nor wrong.
    if (error.kind == ErrorKind::kIo) kind = Kind::kFailure;
    facts_.findings.push_back(finding_of(kind, std::move(code), error));
  }

  void take_header() {
    facts_.virtual_size = header_.size;
    facts_.encrypted = header_.crypt_method != Qcow2Header::kNotEncrypted;
    facts_.dirty = header_.has(Qcow2Header::kDirty);
  }

  void take_first_cluster() {
    facts_.cluster_size = header_.cluster_size();
    const auto first_cluster = read_front(file_, header_.cluster_size());
    if (!first_cluster) return add(Kind::kFailure, "header-unreadable", first_cluster.error());
    first_cluster_ = *first_cluster;
    take_extensions();
    take_names();
    find_in_qcow2_features(header_, extensions_, facts_.findings);
    if (auto checked = check_qcow2_structures(file_, header_, extensions_); !checked) {
      const bool truncated = checked.error().kind == ErrorKind::kTruncated;
      add(Kind::kCorruption, truncated ? "structure-beyond-end" : "structures-overlap",
          checked.error());
    } else if (auto looked = find_in_qcow2_l1_table(file_, header_, facts_.findings); !looked) {
      add(Kind::kCorruption, "l1-table-unreadable", looked.error());
    }
    take_snapshots();
    take_bitmaps();
    take_encryption();
  }

  void take_extensions() {
    Qcow2ExtensionWalk walk(header_, first_cluster_);
    while (true) {
      const auto extension = walk.next();
      if (!extension) return add(Kind::kCorruption, "header-extensions", extension.error());
      if (!*extension) return;
      take_extension(**extension);
    }
  }

  void take_extension(const Qcow2Extension& extension) {
    if (auto taken = take_qcow2_extension(extension, extensions_); !taken) {
      return add(Kind::kCorruption, "header-extensions", taken.error());
    }
    switch (extension.type) {
      case Qcow2Extension::kBackingFormat:
      case Qcow2Extension::kDataFile:
      case Qcow2Extension::kFeatureNames:
      case Qcow2Extension::kBitmaps:
      case Qcow2Extension::kEncryption:
        return;
      default:
        facts_.findings.push_back(
            {.kind = Kind::kNotice,
             .code = "unknown-extension",
             .message = fmt::format("header extension {:#x} ({} bytes) is not known here",
                                    extension.type, extension.data.size()),
             .offset = extension.offset});
    }
  }

  void take_names() {
    std::optional<std::string_view> backing;
    if (header_.backing_file_size <= Qcow2Header::kMaxBackingNameBytes) {
      auto name = parse_qcow2_backing_name(header_, first_cluster_);
      if (!name) {
        add(Kind::kCorruption, "backing-file-name", name.error());
      } else {
        backing = *name;
      }
    }
    if (backing) {
      facts_.backing_filename = *backing;
      facts_.backing_filename_format = extensions_.backing_format;
      facts_.names.push_back({.role = "backing file",
                              .name = facts_.backing_filename,
                              .format = facts_.backing_filename_format});
    }
    if (!extensions_.data_file.empty()) {
      facts_.names.push_back({.role = "data file", .name = std::string(extensions_.data_file)});
    }
    find_in_qcow2_names(header_, extensions_, backing, facts_.findings);
  }

  // The active disk can be served without them.
  void take_snapshots() {
    if (header_.nb_snapshots > Qcow2Header::kMaxSnapshots) return;  // was found
    for (Qcow2SnapshotTable table(file_, header_); !table.at_end();) {
      const auto entry = table.next();
      if (!entry) return add(Kind::kNotice, "snapshot-table-damaged", entry.error());
      take_snapshot(*entry);
    }
  }

  void take_snapshot(const Qcow2SnapshotEntry& entry) {
    constexpr size_t kStateAt = 0;
    constexpr size_t kDiskSizeAt = 8;
    constexpr size_t kIcountAt = 16;
    constexpr uint64_t kNoIcount = ~uint64_t{0};
    const auto extra_at = [&](size_t at) -> std::optional<uint64_t> {
      if (!range_within(at, 8, entry.extra.size())) return std::nullopt;
      return load_be<uint64_t>(entry.extra, at);
    };
    SnapshotFacts snapshot{.id = std::string(entry.id),
                           .name = std::string(entry.name),
                           .vm_state_size = extra_at(kStateAt).value_or(entry.fixed.vm_state_size),
                           .date_sec = entry.fixed.date_sec,
                           .date_nsec = entry.fixed.date_nsec,
                           .vm_clock_nsec = entry.fixed.vm_clock_nsec,
                           .icount = extra_at(kIcountAt),
                           .disk_size = extra_at(kDiskSizeAt)};
    if (snapshot.icount == kNoIcount) snapshot.icount.reset();
    facts_.snapshots.push_back(std::move(snapshot));
    const auto size = parse_qcow2_snapshot_disk_size(header_, entry.extra);
    if (!size) add(Kind::kNotice, "snapshot-without-disk-size", size.error());
  }

  // No byte of the disk depends on bitmaps.
  void take_bitmaps() {
    if (extensions_.bitmaps.empty()) return;
    const auto extension = parse_qcow2_bitmaps_extension(header_, extensions_.bitmaps);
    if (!extension) return add(Kind::kNotice, "bitmaps-extension", extension.error());
    if ((header_.autoclear_features & Qcow2Header::kBitmaps) == 0) {
      facts_.findings.push_back({.kind = Kind::kNotice,
                                 .code = "bitmaps-outdated",
                                 .message = "a program that knows no bitmaps has changed this "
                                            "image (autoclear feature bit 0 is not set), so all "
                                            "its bitmaps are inconsistent"});
      return;
    }
    if (!range_within(extension->bitmap_directory_offset, extension->bitmap_directory_size,
                      file_.size())) {
      return;  // was found among the structures
    }
    bitmaps_ = Json::array();
    for (Qcow2BitmapDirectory directory(file_, *extension); !directory.at_end();) {
      const auto item = directory.next();
      if (!item) return add(Kind::kNotice, "bitmap-directory-damaged", item.error());
      take_bitmap(*item);
    }
  }

  void take_bitmap(const Qcow2BitmapDirectory::Item& item) {
    Json flags = Json::array();
    if ((item.entry.flags & Qcow2BitmapEntry::kInUse) != 0) flags.push_back("in-use");
    if ((item.entry.flags & Qcow2BitmapEntry::kAuto) != 0) flags.push_back("auto");
    Json bitmap = {{"flags", std::move(flags)}, {"name", item.name}};
    if (item.entry.granularity_bits < 64) {
      bitmap["granularity"] = uint64_t{1} << item.entry.granularity_bits;
    }
    bitmaps_.push_back(std::move(bitmap));
    if (auto checked = check_qcow2_bitmap(header_, item.entry); !checked) {
      Failure why = with_context(std::move(checked).error(),
                                 fmt::format("bitmap \"{}\": ", printable(item.name, 200)));
      why.value().offset = item.offset;
      add(Kind::kNotice, "bitmap-unusable", why.value());
    }
  }

  void take_encryption() {
    if (header_.crypt_method == Qcow2Header::kAes) encrypt_ = {{"format", "aes"}};
    if (header_.crypt_method != Qcow2Header::kLuks) return;
    encrypt_ = {{"format", "luks"}};
    const auto container = read_qcow2_luks_header(file_, header_, extensions_.encryption);
    if (!container) return add(Kind::kCorruption, "luks-header", container.error());
    auto facts = luks_facts(*container);
    if (facts) encrypt_ = *std::move(facts);
    const auto served = parse_luks_header(*container);
    if (!served) add(Kind::kCorruption, "luks-header", served.error());
  }

  // QEMU's fields in QEMU's order, and behind them ours.
  void take_specific(bool has_basis) {
    Json& specific = facts_.specific;
    const bool version2 = header_.version == 2;
    specific["compat"] = version2 ? "0.10" : "1.1";
    specific["compression-type"] = header_.codec() == Codec::kZstd ? "zstd" : "zlib";
    if (!version2) {
      specific["lazy-refcounts"] = (header_.compatible_features & Qcow2Header::kLazyRefcounts) != 0;
    }
    if (!bitmaps_.empty()) specific["bitmaps"] = std::move(bitmaps_);
    if (header_.refcount_order <= Qcow2Header::kMaxRefcountOrder) {
      specific["refcount-bits"] = uint32_t{1} << header_.refcount_order;
    }
    const bool names_data_file = header_.external_data() && !extensions_.data_file.empty();
    if (names_data_file) specific["data-file"] = extensions_.data_file;
    if (!encrypt_.is_null()) specific["encrypt"] = std::move(encrypt_);
    if (header_.external_data()) {
      specific["data-file-raw"] = (header_.autoclear_features & Qcow2Header::kRawExternalData) != 0;
    }
    if (!version2) {
      specific["corrupt"] = header_.has(Qcow2Header::kCorrupt);
      specific["extended-l2"] = header_.extended_l2();
    }
    specific["version"] = header_.version;
    specific["header-length"] = header_.header_length;
    if (has_basis) take_features();
  }

  void take_features() {
    const auto take = [&](const char* key, Qcow2FeatureKind kind, uint64_t bits) {
      if (bits == 0) return;
      Json features = Json::array();
      for (unsigned bit = 0; bit < 64; ++bit) {
        if ((bits >> bit & 1) == 0) continue;
        features.push_back(
            {{"bit", bit}, {"name", qcow2_feature_label(extensions_.feature_names, kind, bit)}});
      }
      facts_.specific[key] = std::move(features);
    };
    take("incompatible-features", Qcow2FeatureKind::kIncompatible, header_.incompatible_features);
    take("compatible-features", Qcow2FeatureKind::kCompatible, header_.compatible_features);
    take("autoclear-features", Qcow2FeatureKind::kAutoclear, header_.autoclear_features);
  }

  const Source& file_;
  const Qcow2Header header_;
  std::vector<std::byte> first_cluster_;
  Qcow2Extensions extensions_;
  Json bitmaps_ = Json::array();
  Json encrypt_;
  ImageFacts facts_;
};

}  // namespace

Result<ImageFacts> describe_qcow2(const FileToInspect& file) {
  const auto head = TRY(read_front(*file.source, Qcow2Header::kKnownBytes));
  const Qcow2Header header = TRY(load_qcow2_header(head));
  if (header.version < 2) {
    return fail(ErrorKind::kUnsupported, "version is {}: no qcow2; version 1 is -f qcow",
                header.version);
  }
  return Describer(*file.source, header).describe();
}

}  // namespace underlay
