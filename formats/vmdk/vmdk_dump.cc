#include "formats/vmdk/vmdk_dump.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "formats/vmdk/vmdk_cowd_layout.h"
#include "formats/vmdk/vmdk_fields.h"
#include "formats/vmdk/vmdk_head.h"
#include "formats/vmdk/vmdk_sesparse_layout.h"

namespace underlay {
namespace {

using EntryKind = VmdkEntry::Kind;

constexpr uint64_t kSliceBytes = 64 << 10;  // of tables, read at once

class VmdkDump {
 public:
  VmdkDump(const FileToInspect& file, DumpSink& sink) : source_(*file.source), sink_(sink) {}

  Result<void> run() {
    const VmdkHead head = TRY(read_vmdk_head(source_));
    TRY(dump_head(head));
    if (head.descriptor) TRY(dump_descriptor(head));
    if (!head.extent) return {};
    const VmdkGeometry& geometry = head.extent->geometry;
    const uint64_t redundant = head.extent->redundant_directory;
    if (redundant != 0 && redundant != geometry.directory) {
      VmdkGeometry second = geometry;
      second.directory = redundant;
      TRY(dump_directory(second, "redundant grain directory", "redundant grain table"));
    }
    TRY(dump_directory(geometry, "grain directory", "grain table"));
    if (head.has_footer) TRY(dump_footer());
    return {};
  }

 private:
  Result<std::vector<std::byte>> read(uint64_t offset, uint64_t length) const {
    std::vector<std::byte> bytes(static_cast<size_t>(length));
    TRY(source_.read_at(offset, bytes));
    return bytes;
  }

  Result<void> dump_head(const VmdkHead& head) {
    switch (head.magic) {
      case VmdkMagic::kSparse:
        return dump_at("header", 0, kVmdkSectorBytes, vmdk_hosted_fields());
      case VmdkMagic::kCowd:
        return dump_at("header", 0, kCowdHeaderBytes, vmdk_cowd_fields());
      case VmdkMagic::kSeSparse:
        return dump_se_sparse_headers();
      case VmdkMagic::kNone:
        break;
    }
    return {};
  }

  // What of it lies in the file, or nothing.
  Result<void> dump_at(std::string_view name, uint64_t offset, uint64_t length,
                       std::span<const VmdkField> fields) {
    if (!range_within(offset, length, source_.size())) return {};
    return dump_vmdk_structure(sink_, name, offset, TRY(read(offset, length)), fields);
  }

  Result<void> dump_se_sparse_headers() {
    TRY(dump_at("constant header", 0, kVmdkSectorBytes, vmdk_se_sparse_fields()));
    if (source_.size() < kVmdkSectorBytes) return {};
    const auto bytes = TRY(read(0, kVmdkSectorBytes));
    const auto at = checked_mul(load_le<uint64_t>(bytes, 80), kVmdkSectorBytes);
    if (!at || *at == 0) return {};
    return dump_at("volatile header", *at, kVmdkSectorBytes, vmdk_volatile_fields());
  }

  // Each line is a field, whose name is its number: the parser's messages name it, too.
  Result<void> dump_descriptor(const VmdkHead& head) {
    uint64_t length = source_.size();
    if (head.header) length = head.header->descriptor_size * kVmdkSectorBytes;
    const uint64_t start = head.descriptor_offset;
    length = std::min(length, kVmdkMaxDescriptorBytes);
    TRY(sink_.begin("descriptor", start, length));
    const auto bytes = TRY(read(start, length));
    std::string_view text = as_text(bytes);
    text = text.substr(0, text.find('\0'));
    size_t at = 0;
    for (size_t number = 1; at < text.size(); ++number) {
      const size_t end = std::min(text.find('\n', at), text.size());
      std::string_view line = text.substr(at, end - at);
      if (line.ends_with('\r')) line.remove_suffix(1);
      TRY(sink_.field(fmt::format("line {}", number), start + at, line.size(), std::string(line),
                      ""));
      at = end + 1;
    }
    return {};
  }

  // Calls visit(index, offset, raw) for all entries.
  template <class Visit>
  Result<void> for_each_entry(uint64_t offset, uint64_t count, uint64_t width, Visit visit) {
    uint64_t index = 0;
    while (index < count) {
      const uint64_t at = offset + index * width;
      const auto slice = TRY(read(at, std::min((count - index) * width, kSliceBytes)));
      for (size_t i = 0; i < slice.size() / width; ++i) {
        const uint64_t raw =
            width == 8 ? load_le<uint64_t>(slice, i * width) : load_le<uint32_t>(slice, i * width);
        TRY(visit(index + i, at + i * width, raw));
      }
      index += slice.size() / width;
    }
    return {};
  }

  Result<void> dump_directory(const VmdkGeometry& geometry, std::string_view name,
                              std::string_view table_name) {
    const FileRange range = geometry.directory_range();
    if (!geometry.check_directory(source_.size())) return {};
    if (geometry.compressed) TRY(dump_marker_before(range.offset));
    TRY(sink_.begin(name, range.offset, range.length));
    const uint64_t width = geometry.entry_bytes();
    if (sink_.wants_fields(name)) {
      TRY(for_each_entry(range.offset, geometry.table_count(), width,
                         [&](uint64_t i, uint64_t at, uint64_t raw) {
                           return sink_.field(fmt::format("[{}]", i), at, width, raw,
                                              table_meaning(geometry, i, raw));
                         }));
    }
    return for_each_entry(range.offset, geometry.table_count(), width,
                          [&](uint64_t i, uint64_t, uint64_t raw) -> Result<void> {
                            if (raw == 0 || !geometry.check_table(i, raw, source_.size()))
                              return {};
                            return dump_table(geometry, fmt::format("{} {}", table_name, i), i,
                                              geometry.directory_entry(raw).sector);
                          });
  }

  std::string table_meaning(const VmdkGeometry& geometry, uint64_t number, uint64_t raw) const {
    if (raw == 0) return "absent";
    if (const auto good = geometry.check_table(number, raw, source_.size()); !good) {
      return good.error().message;
    }
    return place(geometry.directory_entry(raw).sector);
  }

  static std::string place(uint64_t sector) {
    return fmt::format("byte {}", sector * kVmdkSectorBytes);
  }

  Result<void> dump_table(const VmdkGeometry& geometry, const std::string& name, uint64_t number,
                          uint64_t sector) {
    const uint64_t start = sector * kVmdkSectorBytes;
    if (geometry.compressed) TRY(dump_marker_before(start));
    TRY(sink_.begin(name, start, geometry.table_bytes()));
    const uint64_t width = geometry.entry_bytes();
    if (sink_.wants_fields(name)) {
      TRY(for_each_entry(start, geometry.gtes_per_gt, width,
                         [&](uint64_t i, uint64_t at, uint64_t raw) {
                           return sink_.field(fmt::format("[{}]", i), at, width, raw,
                                              grain_meaning(geometry, raw));
                         }));
    }
    if (!geometry.compressed) return {};
    return for_each_entry(start, geometry.gtes_per_gt, width,
                          [&](uint64_t i, uint64_t, uint64_t raw) -> Result<void> {
                            const VmdkEntry entry = geometry.table_entry(raw);
                            if (entry.kind != EntryKind::kStored) return {};
                            return dump_at(
                                fmt::format("grain marker {}", number * geometry.gtes_per_gt + i),
                                entry.sector * kVmdkSectorBytes, kVmdkGrainMarkerBytes,
                                vmdk_grain_fields());
                          });
  }

  static std::string grain_meaning(const VmdkGeometry& geometry, uint64_t raw) {
    const VmdkEntry entry = geometry.table_entry(raw);
    switch (entry.kind) {
      case EntryKind::kAbsent:
        return "absent";
      case EntryKind::kZero:
        return "zeros";
      case EntryKind::kUnknown:
        return "unknown";
      case EntryKind::kStored:
        break;
    }
    return place(entry.sector);
  }

  // In a stream, tables and directories stand behind a marker.
  Result<void> dump_marker_before(uint64_t offset) {
    if (offset < 2 * kVmdkSectorBytes) return {};
    const auto bytes = TRY(read(offset - kVmdkSectorBytes, kVmdkSectorBytes));
    const auto type = load_le<uint32_t>(bytes, 12);
    if (load_le<uint32_t>(bytes, 8) != 0 || type == 0 || type > kVmdkLastMarkerType) return {};
    return dump_vmdk_structure(sink_, "metadata marker", offset - kVmdkSectorBytes, bytes,
                               vmdk_marker_fields());
  }

  // Where the reader found it: there may be zeros behind it.
  Result<void> dump_footer() {
    const auto bytes = TRY(read(0, kVmdkSectorBytes));
    const VmdkSparseHeader header = TRY(parse_vmdk_sparse_header(bytes));
    const uint64_t start = TRY(read_vmdk_footer(source_, header)).offset;
    TRY(dump_at("footer marker", start, kVmdkSectorBytes, vmdk_marker_fields()));
    TRY(dump_at("footer", start + kVmdkSectorBytes, kVmdkSectorBytes, vmdk_hosted_fields()));
    return dump_at("end-of-stream marker", start + 2 * kVmdkSectorBytes, kVmdkSectorBytes,
                   vmdk_marker_fields());
  }

  const Source& source_;
  DumpSink& sink_;
};

}  // namespace

Result<void> dump_vmdk(const FileToInspect& file, DumpSink& sink) {
  return VmdkDump(file, sink).run();
}

}  // namespace underlay
