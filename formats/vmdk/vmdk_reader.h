// A VMDK image whose extents are open.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/reader.h"
#include "formats/vmdk/vmdk_descriptor.h"
#include "formats/vmdk/vmdk_extent.h"

namespace underlay {

// One extent of the disk.
struct VmdkDiskExtent {
  enum class Kind : uint8_t { kFlat, kSparse, kZero, kNoAccess };
  Kind kind = Kind::kZero;
  uint64_t start = 0;                    // guest offset of its first byte
  uint64_t end = 0;                      // of the byte behind it
  size_t line = 0;                       // in the descriptor
  std::shared_ptr<const Source> source;  // kFlat, kSparse
  uint64_t flat_offset = 0;              // kFlat: byte in the file
  std::unique_ptr<const VmdkSparseExtent> sparse;
};

// By which names a parent is looked for, in this order. REQUIRES: the hint is not empty.
std::vector<std::string> vmdk_parent_names(const VmdkFileName& hint);

class VmdkReader final : public Reader {
 public:
  // `file` has the descriptor. `extents` are in order, without gaps, at least one.
  VmdkReader(std::shared_ptr<const Source> file, VmdkDescriptor descriptor,
             std::vector<VmdkDiskExtent> extents)
      : file_(std::move(file)), descriptor_(std::move(descriptor)), extents_(std::move(extents)) {}

  uint64_t size() const override { return extents_.back().end; }
  uint64_t cluster_size() const override;  // the smallest grain of them all
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const override;
  Result<void> load_cluster(const Extent& extent, MutableByteSpan out) const override;
  std::optional<ParentLink> parent() const override;
  std::string identity() const override;  // the CID, eight digits
  std::vector<const Source*> sources() const override;

 private:
  const VmdkDiskExtent& extent_at(uint64_t offset) const;
  Result<Extent> map_within(const VmdkDiskExtent& disk_extent, uint64_t offset, uint64_t length,
                            MapFor purpose) const;

  std::shared_ptr<const Source> file_;
  VmdkDescriptor descriptor_;
  std::vector<VmdkDiskExtent> extents_;
};

}  // namespace underlay
