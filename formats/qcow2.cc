#include "formats/qcow2.h"

#include <algorithm>

#include "formats/file_name.h"
#include "formats/qcow2_encryption.h"
#include "formats/qcow2_reader.h"
#include "formats/qcow2_structures.h"
#include "formats/snapshot_choice.h"

namespace underlay {
namespace {

using Bytes = std::vector<std::byte>;

Result<Bytes> read_head(const Source& file, uint64_t length) {
  Bytes head(static_cast<size_t>(std::min(length, file.size())));
  TRY(file.read_at(0, head));
  return head;
}

// One snapshot table entry.
struct Snapshot {
  std::string id;
  std::string name;
  Qcow2L1 l1;
};

// Walks the snapshot table, entry by entry.
class SnapshotTable {
 public:
  SnapshotTable(const Source& file, const Qcow2Header& header)
      : file_(file), header_(header), at_(header.snapshots_offset), left_(header.nb_snapshots) {}

  bool at_end() const { return left_ == 0; }

  // REQUIRES: !at_end().
  Result<Snapshot> next() {
    auto snapshot = parse_entry();
    if (!snapshot) return in_file(std::move(snapshot).error(), file_.name(), at_);
    --left_;
    return snapshot;
  }

 private:
  Result<Snapshot> parse_entry() {
    TRY(check_present(Qcow2Snapshot::kFixedBytes));
    std::array<std::byte, Qcow2Snapshot::kFixedBytes> fixed;
    TRY(file_.read_at(at_, fixed));
    const Qcow2Snapshot entry = TRY(parse_qcow2_snapshot(fixed));
    if (at_ - header_.snapshots_offset > Qcow2Snapshot::kMaxTableBytes - entry.total_bytes()) {
      return fail(ErrorKind::kLimit, "the snapshot table has more than {} bytes",
                  Qcow2Snapshot::kMaxTableBytes);
    }
    TRY(check_present(Qcow2Snapshot::kFixedBytes + entry.variable_bytes()));
    variable_.resize(entry.variable_bytes());
    TRY(file_.read_at(at_ + Qcow2Snapshot::kFixedBytes, variable_));

    const ByteSpan extra = ByteSpan(variable_).first(entry.extra_bytes);
    const std::string_view text = as_text(variable_).substr(entry.extra_bytes);
    Snapshot snapshot;
    snapshot.id = text.substr(0, entry.id_bytes);
    snapshot.name = text.substr(entry.id_bytes);
    snapshot.l1 = Qcow2L1{.offset = entry.l1_table_offset,
                          .entries = entry.l1_size,
                          .disk_size = TRY(parse_qcow2_snapshot_disk_size(header_, extra))};
    at_ += entry.total_bytes();
    return snapshot;
  }

  Result<void> check_present(uint64_t length) const {
    if (range_within(at_, length, file_.size())) return {};
    return fail(ErrorKind::kTruncated,
                "the snapshot table ends beyond the end of the file, which has {} bytes: it is "
                "truncated or damaged",
                file_.size());
  }

  const Source& file_;
  const Qcow2Header& header_;
  uint64_t at_;
  uint32_t left_;
  Bytes variable_;
};

// For the operator who asked for a snapshot that is not there.
std::string list_names(const std::vector<SnapshotLabel>& labels) {
  constexpr size_t kMaxListed = 16;
  constexpr size_t kMaxNameBytes = 64;
  std::string text;
  for (size_t i = 0; i < std::min(labels.size(), kMaxListed); ++i) {
    if (i > 0) text += ", ";
    text += fmt::format("{} (\"{}\")", printable(labels[i].id, kMaxNameBytes),
                        printable(labels[i].name, kMaxNameBytes));
  }
  if (labels.empty()) return "none";
  if (labels.size() <= kMaxListed) return text;
  return fmt::format("{} and {} more", text, labels.size() - kMaxListed);
}

// The L1 table of the snapshot that `wanted` (-l) means.
Result<Qcow2L1> snapshot_l1(const Source& file, const Qcow2Header& header,
                            std::string_view wanted) {
  if (header.external_data()) {
    return fail(ErrorKind::kUnsupported,
                "an image with a data file has no internal snapshots: -l \"{}\" cannot be served",
                printable(wanted, 80));
  }
  const SnapshotChoice choice = TRY(parse_snapshot_choice(wanted));
  std::vector<SnapshotLabel> labels;
  std::vector<Qcow2L1> tables;
  for (SnapshotTable table(file, header); !table.at_end();) {
    Snapshot snapshot = TRY(table.next());
    labels.push_back({.id = std::move(snapshot.id), .name = std::move(snapshot.name)});
    tables.push_back(snapshot.l1);
  }
  auto found = find_snapshot(choice, labels);
  if (!found) {
    if (found.error().kind == ErrorKind::kNotFound) {
      found.error().message += fmt::format("; there are: {}", list_names(labels));
    }
    return Failure(std::move(found).error());
  }
  auto checked = check_qcow2_l1(header, tables[*found]);
  if (!checked) {
    // The check speaks of the header's fields.
    checked.error().offset.reset();
    return with_context(std::move(checked).error(),
                        fmt::format("snapshot \"{}\": ", printable(wanted, 80)));
  }
  return tables[*found];
}

Result<std::optional<ParentLink>> backing_file(const Qcow2Header& header,
                                               const Qcow2Extensions& extensions,
                                               ByteSpan first_cluster) {
  const auto name = TRY(parse_qcow2_backing_name(header, first_cluster));
  if (!name) return std::nullopt;
  TRY(refuse_protocol("backing file", *name));
  if (header.external_data() && (header.autoclear_features & Qcow2Header::kRawExternalData) != 0) {
    return fail(ErrorKind::kMalformed,
                "names the backing file \"{}\" and says that its data file alone is the whole disk "
                "(autoclear feature bit 1): the two exclude each other",
                printable(*name, 200));
  }
  ParentLink link;
  link.names.emplace_back(*name);
  if (!extensions.backing_format.empty()) link.format = std::string(extensions.backing_format);
  return link;
}

// Null when the image has none.
Result<std::shared_ptr<const Source>> open_data_file(const ImageToOpen& image,
                                                     const Qcow2Header& header,
                                                     const Qcow2Extensions& extensions) {
  if (!header.external_data()) return nullptr;
  if (extensions.data_file.empty()) {
    return fail(ErrorKind::kMalformed,
                "its data lies in a data file (incompatible feature bit 2) that it does not name: "
                "qemu-img amend -o data_file=FILE names it");
  }
  TRY(refuse_protocol("data file", extensions.data_file));
  auto data = TRY(image.files.open(image.path, extensions.data_file)).source;
  const auto identity = data->identity();
  if (identity && identity == image.source->identity()) {
    return fail(ErrorKind::kMalformed, "names itself as its data file");
  }
  return data;
}

void warn(const Qcow2Header& header, std::vector<std::string>& warnings) {
  if (header.has(Qcow2Header::kDirty)) {
    warnings.emplace_back(
        "was not closed by its last writer (dirty bit): nothing that is read depends on what may "
        "be wrong; qemu-img check -r all repairs it");
  }
  if (header.has(Qcow2Header::kCorrupt)) {
    warnings.emplace_back(
        "is marked as corrupt by its last writer (corrupt bit): what is read may be wrong; "
        "qemu-img check shows how");
  }
}

}  // namespace

ProbeResult probe_qcow2(const ProbeInput& input) {
  const auto damaged = [](std::string reason) {
    return ProbeResult{.verdict = ProbeVerdict::kDamaged, .reason = std::move(reason)};
  };
  const bool magic = input.head.size() >= kQcow2Magic.size() &&
                     std::equal(kQcow2Magic.begin(), kQcow2Magic.end(), input.head.begin());
  if (!magic) {
    if (!resembles_qcow2(input.head)) return {};
    return damaged("the header is one of qcow2, but for one byte of its magic");
  }
  const bool has_version = input.head.size() >= 8;
  const uint32_t version = has_version ? load_be<uint32_t>(input.head, 4) : 0;
  if (has_version && version != 2 && version != 3) {
    return damaged(fmt::format("the magic is right, but the version is {}, not 2 or 3", version));
  }
  const size_t needed = version == 3 ? Qcow2Header::kVersion3Bytes : Qcow2Header::kVersion2Bytes;
  if (input.head.size() < needed) {
    return damaged(fmt::format("the magic is right, but the file has only {} bytes", input.size));
  }
  return {.verdict = ProbeVerdict::kYes, .reason = {}};
}

Result<std::unique_ptr<Reader>> open_qcow2(const ImageToOpen& image) {
  const Bytes head = TRY(read_head(*image.source, Qcow2Header::kKnownBytes));
  const Qcow2Header header = TRY(parse_qcow2_header(head));
  const Bytes first_cluster = TRY(read_head(*image.source, header.cluster_size()));
  const Qcow2Extensions extensions = TRY(parse_qcow2_extensions(header, first_cluster));
  TRY(check_qcow2_supported(header, extensions));
  TRY(check_qcow2_structures(*image.source, header, extensions));

  Qcow2Parts parts;
  parts.file = image.source;
  parts.header = header;
  parts.parent = TRY(backing_file(header, extensions, first_cluster));
  parts.bitmaps.assign(extensions.bitmaps.begin(), extensions.bitmaps.end());
  parts.l1 = Qcow2L1{
      .offset = header.l1_table_offset, .entries = header.l1_size, .disk_size = header.size};
  if (image.options.snapshot) {
    parts.l1 = TRY(snapshot_l1(*image.source, header, *image.options.snapshot));
  }
  parts.data_file = TRY(open_data_file(image, header, extensions));
  parts.cipher = TRY(unlock_qcow2(image, header, extensions));
  auto reader = std::make_unique<Qcow2Reader>(std::move(parts), image.caches);
  TRY(reader->check_tables());
  warn(header, image.warnings);
  return reader;
}

}  // namespace underlay
