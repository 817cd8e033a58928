// A persistent dirty bitmap of a qcow2 image: found in the bitmap directory, read through its
// table.
#pragma once

#include <memory>
#include <string_view>

#include "formats/dirty_bitmap.h"
#include "formats/metadata.h"
#include "formats/qcow2/qcow2_bitmap_layout.h"

namespace underlay {

// Reads the directory anew: nothing of it stays in memory. Null when there is no bitmap of that
// name. Fails when the bitmap must not be used, and when its tables cannot be where they are said
// to be. `caches` outlives the bitmap.
Result<std::unique_ptr<const DirtyBitmap>> find_qcow2_bitmap(std::shared_ptr<const Source> file,
                                                             Caches& caches,
                                                             const Qcow2Header& header,
                                                             const Qcow2BitmapsExtension& extension,
                                                             std::string_view name);

class Qcow2Bitmap final : public DirtyBitmap {
 public:
  // REQUIRES: check_qcow2_bitmap(header, entry).
  Qcow2Bitmap(std::shared_ptr<const Source> file, Caches& caches, const Qcow2Header& header,
              const Qcow2BitmapEntry& entry)
      : header_(header), entry_(entry), tables_(caches, std::move(file)) {}

  // Fails when the table, or bits that it names, cannot be where they are said to be. Reads the
  // table only when it has at most kMaxCheckedTableBytes; larger ones are checked at use.
  Result<void> check_table() const;
  static constexpr uint64_t kMaxCheckedTableBytes = 1 << 20;

  Result<DirtyRun> run_at(uint64_t offset, uint64_t length) const override;

 private:
  Result<Qcow2BitmapCluster> cluster_at(const MetadataSlice& table, uint64_t entry_offset) const;
  Result<DirtyRun> run_of_like_clusters(const MetadataSlice& table, uint64_t entry_offset,
                                        bool value) const;
  Result<DirtyRun> run_of_bits(uint64_t cluster_of_bits, uint64_t bit) const;
  uint64_t cluster_bits() const { return header_.cluster_size() * 8; }

  const Qcow2Header header_;
  const Qcow2BitmapEntry entry_;
  const Metadata tables_;
};

}  // namespace underlay
