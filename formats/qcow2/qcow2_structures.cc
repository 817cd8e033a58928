#include "formats/qcow2/qcow2_structures.h"

#include <algorithm>

#include "formats/file_range.h"
#include "formats/qcow2/qcow2_bitmap_layout.h"

namespace underlay {
namespace {

struct Structure {
  const char* name;
  FileRange range;
};

// What the header names; of structures whose length only they themselves tell, what they have at
// least. Bitmaps that are not valid lie nowhere any more.
std::vector<Structure> structures_of(const Qcow2Header& header, const Qcow2Extensions& extensions) {
  const uint64_t snapshot_bytes = header.nb_snapshots * uint64_t{Qcow2Snapshot::kFixedBytes};
  std::vector<Structure> all = {
      {"header's cluster", {.offset = 0, .length = header.cluster_size()}},
      {"L1 table", {.offset = header.l1_table_offset, .length = uint64_t{header.l1_size} * 8}},
      {"refcount table",
       {.offset = header.refcount_table_offset,
        .length = header.refcount_table_clusters * header.cluster_size()}},
      {"snapshot table", {.offset = header.snapshots_offset, .length = snapshot_bytes}},
  };
  if ((header.autoclear_features & Qcow2Header::kBitmaps) == 0) return all;
  if (const auto bitmaps = parse_qcow2_bitmaps_extension(header, extensions.bitmaps)) {
    all.push_back(
        {"bitmap directory",
         {.offset = bitmaps->bitmap_directory_offset, .length = bitmaps->bitmap_directory_size}});
  }
  return all;
}

}  // namespace

Result<std::vector<std::byte>> read_front(const Source& file, uint64_t length) {
  std::vector<std::byte> front(static_cast<size_t>(std::min(length, file.size())));
  TRY(file.read_at(0, front));
  return front;
}

Result<void> check_qcow2_structures(const Source& file, const Qcow2Header& header,
                                    const Qcow2Extensions& extensions) {
  const std::vector<Structure> all = structures_of(header, extensions);
  for (size_t i = 1; i < all.size(); ++i) {
    const auto& [name, range] = all[i];
    if (range.length == 0) continue;
    if (!range_within(range.offset, range.length, file.size())) {
      return in_file(fail(ErrorKind::kTruncated,
                          "the {} has {} bytes at {}: it ends beyond the end of the file, which "
                          "has {} bytes; the file is truncated or damaged",
                          name, range.length, range.offset, file.size()),
                     file.name(), range.offset);
    }
    for (size_t other = 0; other < i; ++other) {
      if (!range.overlaps(all[other].range)) continue;
      return in_file(fail(ErrorKind::kMalformed,
                          "the {} ({} bytes at {}) and the {} ({} bytes at {}) overlap: the image "
                          "is damaged; qemu-img check tells more",
                          all[other].name, all[other].range.length, all[other].range.offset, name,
                          range.length, range.offset),
                     file.name(), range.offset);
    }
  }
  return {};
}

}  // namespace underlay
