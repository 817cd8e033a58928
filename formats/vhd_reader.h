// The readers of opened VHD images: what lies at a guest offset.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/file_range.h"
#include "formats/metadata.h"
#include "formats/reader.h"
#include "formats/vhd_layout.h"

namespace underlay::vhd {

// A fixed image: the disk's bytes, then the footer.
class FixedReader final : public Reader {
 public:
  // REQUIRES: size <= source->size().
  FixedReader(std::shared_ptr<const Source> source, uint64_t size, const UniqueId& id)
      : source_(std::move(source)), size_(size), identity_(to_string(id)) {}

  uint64_t size() const override { return size_; }
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const override;
  std::string identity() const override { return identity_; }
  std::vector<const Source*> sources() const override { return {source_.get()}; }

 private:
  std::shared_ptr<const Source> source_;
  uint64_t size_;
  std::string identity_;
};

// What the opening found out about a dynamic or differencing image.
struct SparseImage {
  Footer footer;
  DynamicHeader header;
  uint64_t size = 0;                   // guest-visible; the BAT has an entry for each of its blocks
  uint64_t data_end = 0;               // of the file: blocks lie before it; the BAT lies before it
  std::optional<ParentLink> parent;    // differencing
  std::optional<BatmapHeader> batmap;  // whole, with a bit for each block of the disk
  std::vector<FileRange> metadata;     // structures that no block may overlap
};

// A dynamic or differencing image.
class SparseReader final : public Reader {
 public:
  // `caches` outlives the reader.
  SparseReader(std::shared_ptr<const Source> source, SparseImage image, Caches& caches)
      : image_(std::move(image)),
        bitmap_bytes_(image_.header.bitmap_bytes()),
        source_(source),
        tables_(caches, std::move(source)) {}

  // Fails when an entry of the BAT that the disk needs is wrong. Reads the whole BAT; may block.
  Result<void> check_table() const;

  uint64_t size() const override { return image_.size; }
  uint64_t cluster_size() const override { return image_.header.block_size; }
  // In a dynamic image, all bytes of a block are the disk's, whatever its sector bitmap says, as
  // writers leave bits unset. In a differencing image, the sectors of unset bits are the parent's.
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const override;
  std::optional<ParentLink> parent() const override { return image_.parent; }
  std::string identity() const override { return to_string(image_.footer.unique_id); }
  std::vector<const Source*> sources() const override { return {source_.get()}; }

 private:
  struct SectorRun {
    bool present = false;  // in this image, not in its parent
    uint64_t length = 0;   // bytes
  };
  uint64_t entry_offset(uint64_t block) const { return image_.header.table_offset + block * 4; }
  uint64_t blocks() const { return div_round_up(image_.size, image_.header.block_size); }
  Result<uint64_t> block_start(uint64_t block, uint32_t entry) const;
  Extent free_run(const MetadataSlice& bat, uint64_t offset, uint64_t length) const;
  Result<bool> is_full(uint64_t block, MapFor purpose) const;
  Result<SectorRun> sector_run(uint64_t start, uint64_t within, uint64_t length,
                               MapFor purpose) const;

  SparseImage image_;
  uint64_t bitmap_bytes_;
  std::shared_ptr<const Source> source_;
  Metadata tables_;
};

}  // namespace underlay::vhd
