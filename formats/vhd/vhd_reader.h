// The readers of opened VHD images: what lies at a guest offset.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/metadata.h"
#include "formats/vhd/vhd_blocks.h"

namespace underlay::vhd {

// A fixed image: the disk's bytes, then the footer.
class FixedReader final : public Reader {
 public:
  // REQUIRES: size <= source->size().
  FixedReader(std::shared_ptr<const Source> source, uint64_t size, const Guid& id)
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

// A dynamic or differencing image.
class SparseReader final : public Reader {
 public:
  // `caches` outlives the reader.
  SparseReader(std::shared_ptr<const Source> source, SparseImage image, Caches& caches)
      : image_(std::move(image)),
        bitmap_bytes_(image_.header.bitmap_bytes()),
        bitmaps_count_(image_.parent || image_.footer.is_by_tapdisk()),
        bits_are_reversed_(image_.footer.is_by_tapdisk01()),
        source_(source),
        tables_(caches, std::move(source)) {}

  uint64_t size() const override { return image_.size; }
  uint64_t cluster_size() const override { return image_.header.block_size; }
  // In a differencing image, the sectors of unset bits are the parent's. In a dynamic one they are
  // zeros when tapdisk wrote it, which leaves there what a block device held before; of other
  // writers, all bytes of a block are the disk's, as some of them leave bits unset (so does qemu).
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const override;
  std::optional<ParentLink> parent() const override { return image_.parent; }
  std::string identity() const override { return to_string(image_.footer.unique_id); }
  std::vector<const Source*> sources() const override { return {source_.get()}; }

 private:
  struct SectorRun {
    bool present = false;  // in this image, not in its parent
    uint64_t length = 0;   // bytes
  };
  Extent absent(uint64_t length) const;
  Extent free_run(const MetadataSlice& bat, uint64_t offset, uint64_t length) const;
  Result<bool> is_full(uint64_t block, MapFor purpose) const;
  Result<SectorRun> sector_run(uint64_t start, uint64_t within, uint64_t length,
                               MapFor purpose) const;

  SparseImage image_;
  uint64_t bitmap_bytes_;
  bool bitmaps_count_;      // the sector bitmaps
  bool bits_are_reversed_;  // in them: the first sector is the least significant bit of a byte
  std::shared_ptr<const Source> source_;
  Metadata tables_;
};

}  // namespace underlay::vhd
