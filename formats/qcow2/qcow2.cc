#include "formats/qcow2/qcow2.h"

#include <algorithm>

#include "formats/file_name.h"
#include "formats/qcow2/qcow2_encryption.h"
#include "formats/qcow2/qcow2_reader.h"
#include "formats/qcow2/qcow2_snapshot_table.h"
#include "formats/qcow2/qcow2_structures.h"
#include "formats/snapshot_choice.h"

namespace underlay {
namespace {

using Bytes = std::vector<std::byte>;

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

Result<uint64_t> snapshot_disk_size(const Source& file, const Qcow2Header& header,
                                    const Qcow2SnapshotEntry& snapshot) {
  auto size = parse_qcow2_snapshot_disk_size(header, snapshot.extra);
  if (!size) return in_file(std::move(size).error(), file.name(), snapshot.offset);
  return size;
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
  for (Qcow2SnapshotTable table(file, header); !table.at_end();) {
    const Qcow2SnapshotEntry snapshot = TRY(table.next());
    const uint64_t disk_size = TRY(snapshot_disk_size(file, header, snapshot));
    labels.push_back({.id = std::string(snapshot.id), .name = std::string(snapshot.name)});
    tables.push_back({.offset = snapshot.fixed.l1_table_offset,
                      .entries = snapshot.fixed.l1_size,
                      .disk_size = disk_size});
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
  const Bytes head = TRY(read_front(*image.source, Qcow2Header::kKnownBytes));
  const Qcow2Header header = TRY(parse_qcow2_header(head));
  const Bytes first_cluster = TRY(read_front(*image.source, header.cluster_size()));
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
