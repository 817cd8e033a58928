// The reader of an opened VHDX: what lies at a guest offset.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/metadata.h"
#include "formats/reader.h"
#include "formats/vhdx/vhdx_blocks.h"
#include "formats/vhdx/vhdx_overlay.h"

namespace underlay::vhdx {

// What the opening found out about an image.
struct OpenedImage {
  std::shared_ptr<const Source> file;
  std::shared_ptr<const ReplayedSource> replayed;  // null: its log is empty
  Geometry geometry;
  FileRange bat;                      // has all entries that the disk needs
  std::vector<FileRange> structures;  // log and regions: ascending, none overlaps another
  std::string identity;
  std::optional<ParentLink> parent;  // differencing
};

// A fixed, dynamic or differencing image: they differ in nothing but what an absent block means.
class VhdxReader final : public Reader {
 public:
  // `caches` outlives the reader.
  VhdxReader(OpenedImage image, Caches& caches);

  // Fails when an entry of the BAT that the disk needs is wrong, or when two blocks overlap. Reads
  // the whole BAT, and needs as much memory again; may block.
  Result<void> check_table() const;

  uint64_t size() const override { return image_.geometry.virtual_disk_size; }
  uint64_t cluster_size() const override { return image_.geometry.block_size; }
  // A sector of a block that the log rewrites, which the specification forbids, is kCopied.
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const override;
  Result<void> load_cluster(const Extent& extent, MutableByteSpan out) const override;
  std::optional<ParentLink> parent() const override { return image_.parent; }
  std::string identity() const override { return image_.identity; }
  std::vector<const Source*> sources() const override { return {image_.file.get()}; }
  const Source& image_source() const override;

 private:
  struct SectorRun {
    bool present = false;  // in this image, not in its parent
    uint64_t length = 0;   // bytes
  };
  using Content = BatRules::Content;
  // Where blocks lie, for finding overlaps.
  struct Places {
    std::vector<FileRange> ranges;
    std::optional<uint64_t> bitmap;  // the entry of the sector bitmap block that came last
  };

  uint64_t entry_offset(uint64_t entry) const { return rules_.entry_offset(entry); }
  uint64_t payload_entry_offset(uint64_t block) const {
    return entry_offset(image_.geometry.entry_of(block));
  }
  Result<Content> content_of(uint64_t block, const BatEntry& entry) const;
  Result<BatEntry> bitmap_entry(uint64_t block, MapFor purpose) const;
  Result<void> check_block(uint64_t block, const BatEntry& entry, Places& places) const;
  uint64_t run_of_blocks(const MetadataSlice& bat, uint64_t block, Content content,
                         uint64_t enough) const;
  Result<SectorRun> sector_run(uint64_t block, uint64_t within, uint64_t length,
                               MapFor purpose) const;
  Extent stored(uint64_t offset, uint64_t file_offset, uint64_t length) const;

  OpenedImage image_;
  BatRules rules_;
  Metadata tables_;
};

}  // namespace underlay::vhdx
