#include "formats/qcow2/qcow2_findings.h"

#include <algorithm>

#include "formats/file_name.h"
#include "formats/inspection/table_reader.h"
#include "formats/qcow2/qcow2_entries.h"

namespace underlay {
namespace {

using Kind = Finding::Kind;

template <class... Args>
void add(Findings& findings, Kind kind, std::string code, std::optional<uint64_t> offset,
         fmt::format_string<Args...> format, Args&&... args) {
  findings.push_back({.kind = kind,
                      .code = std::move(code),
                      .message = fmt::format(format, std::forward<Args>(args)...),
                      .offset = offset});
}

// Where the fields lie in the header.
constexpr uint64_t kCryptMethodAt = 32;
constexpr uint64_t kIncompatibleAt = 72;
constexpr uint64_t kCompatibleAt = 80;
constexpr uint64_t kAutoclearAt = 88;

struct KnownFeature {
  Qcow2FeatureKind kind;
  unsigned bit;
  std::string_view name;
};
constexpr KnownFeature kKnownFeatures[] = {
    {Qcow2FeatureKind::kIncompatible, 0, "dirty bit"},
    {Qcow2FeatureKind::kIncompatible, 1, "corrupt bit"},
    {Qcow2FeatureKind::kIncompatible, 2, "external data file"},
    {Qcow2FeatureKind::kIncompatible, 3, "compression type"},
    {Qcow2FeatureKind::kIncompatible, 4, "extended L2 entries"},
    {Qcow2FeatureKind::kCompatible, 0, "lazy refcounts"},
    {Qcow2FeatureKind::kAutoclear, 0, "bitmaps"},
    {Qcow2FeatureKind::kAutoclear, 1, "raw external data"}};

struct FeatureField {
  Qcow2FeatureKind kind;
  std::string_view name;
  uint64_t offset;
  uint64_t unknown;  // those of its bits that are set and not known
};

void find_unknown(const FeatureField& field, ByteSpan names, Findings& findings) {
  const bool refused = field.kind == Qcow2FeatureKind::kIncompatible;
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((field.unknown >> bit & 1) == 0) continue;
    const std::string_view name = qcow2_feature_name(names, field.kind, bit);
    add(findings, refused ? Kind::kCorruption : Kind::kNotice,
        fmt::format("unknown-{}-feature", field.name), field.offset,
        "{} feature bit {} (\"{}\") is set: it is not known here{}", field.name, bit,
        name.empty() ? "unnamed" : printable(name),
        refused ? ", and without it nothing can be read rightly" : "");
  }
}

void find_in_state(const Qcow2Header& header, Findings& findings) {
  if (header.has(Qcow2Header::kDirty)) {
    add(findings, Kind::kNotice, "dirty", kIncompatibleAt,
        "was not closed by its last writer (dirty bit): refcounts may be wrong, what is read is "
        "not");
  }
  if (header.has(Qcow2Header::kCorrupt)) {
    add(findings, Kind::kNotice, "marked-corrupt", kIncompatibleAt,
        "is marked as corrupt by its last writer (corrupt bit): what is read may be wrong");
  }
  if (header.refcount_order > Qcow2Header::kMaxRefcountOrder) {
    add(findings, Kind::kNotice, "refcount-order", 96,
        "refcount_order is {}: must be at most {}; nobody can write to it", header.refcount_order,
        Qcow2Header::kMaxRefcountOrder);
  }
  if (header.external_data() && header.nb_snapshots != 0) {
    add(findings, Kind::kNotice, "snapshots-with-data-file", 60,
        "nb_snapshots is {}: an image with a data file cannot have snapshots", header.nb_snapshots);
  }
}

void find_in_encryption(const Qcow2Header& header, const Qcow2Extensions& extensions,
                        Findings& findings) {
  if (header.crypt_method == Qcow2Header::kAes) {
    add(findings, Kind::kCorruption, "encryption-aes", kCryptMethodAt,
        "crypt_method is 1 (AES): its passphrase cannot be checked, so a wrong one would give "
        "wrong data; qemu-img convert decrypts it");
  } else if (header.crypt_method > Qcow2Header::kLuks) {
    add(findings, Kind::kCorruption, "encryption-unknown", kCryptMethodAt,
        "crypt_method is {}: 0 (none) and 2 (LUKS) are served", header.crypt_method);
  }
  if (header.crypt_method != Qcow2Header::kLuks && !extensions.encryption.empty()) {
    add(findings, Kind::kCorruption, "encryption-header-unused", kCryptMethodAt,
        "crypt_method is {}, but a header extension tells where its LUKS header lies: only images "
        "with crypt_method 2 have one",
        header.crypt_method);
  }
}

void find_in_backing_file(const Qcow2Header& header, const Qcow2Extensions& extensions,
                          std::string_view name, Findings& findings) {
  const uint64_t at = header.backing_file_offset;
  if (names_protocol(name)) {
    add(findings, Kind::kCorruption, "backing-file-protocol", at,
        "names the backing file \"{}\": what precedes the colon is a protocol, and an image's "
        "protocols are never followed",
        printable(name, 200));
  }
  if (extensions.backing_format.empty()) {
    add(findings, Kind::kNotice, "backing-format-unstated", at,
        "does not state the format of its backing file \"{}\": guessing would trust what a guest "
        "may have written; qemu-img rebase -u -F FORMAT states it",
        printable(name, 200));
  }
  if (header.external_data() && (header.autoclear_features & Qcow2Header::kRawExternalData) != 0) {
    add(findings, Kind::kCorruption, "backing-file-with-raw-data-file", kAutoclearAt,
        "names the backing file \"{}\" and says that its data file alone is the whole disk "
        "(autoclear feature bit 1): the two exclude each other",
        printable(name, 200));
  }
}

}  // namespace

std::string_view qcow2_feature_label(ByteSpan names, Qcow2FeatureKind kind, unsigned bit) {
  for (const KnownFeature& feature : kKnownFeatures) {
    if (feature.kind == kind && feature.bit == bit) return feature.name;
  }
  return qcow2_feature_name(names, kind, bit);
}

bool find_in_qcow2_header(const Qcow2Header& header, Findings& findings) {
  for (const Qcow2HeaderRule& rule : qcow2_header_rules()) {
    const auto checked = rule.check(header);
    if (checked) continue;
    findings.push_back(finding_of(Kind::kCorruption, std::string(rule.name), checked.error()));
    if (rule.is_basis) return false;
  }
  return true;
}

void find_in_qcow2_features(const Qcow2Header& header, const Qcow2Extensions& extensions,
                            Findings& findings) {
  const FeatureField fields[] = {
      {Qcow2FeatureKind::kIncompatible, "incompatible", kIncompatibleAt,
       header.incompatible_features & ~Qcow2Header::kKnownIncompatible},
      {Qcow2FeatureKind::kCompatible, "compatible", kCompatibleAt,
       header.compatible_features & ~Qcow2Header::kLazyRefcounts},
      {Qcow2FeatureKind::kAutoclear, "autoclear", kAutoclearAt,
       header.autoclear_features & ~(Qcow2Header::kBitmaps | Qcow2Header::kRawExternalData)}};
  for (const FeatureField& field : fields) find_unknown(field, extensions.feature_names, findings);
  find_in_state(header, findings);
  find_in_encryption(header, extensions, findings);
}

void find_in_qcow2_names(const Qcow2Header& header, const Qcow2Extensions& extensions,
                         std::optional<std::string_view> backing, Findings& findings) {
  if (backing) find_in_backing_file(header, extensions, *backing, findings);
  const std::string_view data_file = extensions.data_file;
  if (!header.external_data()) {
    if (!data_file.empty()) {
      add(findings, Kind::kNotice, "data-file-unused", kIncompatibleAt,
          "names the data file \"{}\", but says that it has none (incompatible feature bit 2)",
          printable(data_file, 200));
    }
    return;
  }
  if (data_file.empty()) {
    add(findings, Kind::kCorruption, "data-file-unnamed", kIncompatibleAt,
        "its data lies in a data file (incompatible feature bit 2) that it does not name: qemu-img "
        "amend -o data_file=FILE names it");
  } else if (names_protocol(data_file)) {
    add(findings, Kind::kCorruption, "data-file-protocol", std::nullopt,
        "names the data file \"{}\": what precedes the colon is a protocol, and an image's "
        "protocols are never followed",
        printable(data_file, 200));
  }
}

Result<void> find_in_qcow2_l1_table(const Source& file, const Qcow2Header& header,
                                    Findings& findings) {
  std::vector<uint64_t> tables;
  // What lies behind the disk's end in the table is not served.
  const uint64_t used =
      std::min<uint64_t>(header.l1_size, div_round_up(header.size, header.l2_span()));
  tables.reserve(used);  // kMaxL1Bytes at most
  const FileRange table{.offset = header.l1_table_offset, .length = used * 8};
  TRY(for_each_piece(file, table, [&](uint64_t, ByteSpan bytes) -> Result<void> {
    for (size_t at = 0; at < bytes.size(); at += 8) {
      const uint64_t offset = split_qcow2_l1_entry(load_be<uint64_t>(bytes, at)).offset;
      if (offset != 0) tables.push_back(offset);
    }
    return {};
  }));
  std::sort(tables.begin(), tables.end());
  const auto twice = std::adjacent_find(tables.begin(), tables.end());
  if (twice == tables.end()) return {};
  const auto times = std::upper_bound(twice, tables.end(), *twice) - twice;
  add(findings, Kind::kCorruption, "l2-table-shared", header.l1_table_offset,
      "{} entries of the L1 table name the L2 table at byte {}: parts of the disk share what is "
      "stored, and a write to one changes the others",
      times, *twice);
  return {};
}

}  // namespace underlay
