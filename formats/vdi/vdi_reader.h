// The reader of an opened VDI: what lies at a guest offset.
#pragma once

#include <string>
#include <vector>

#include "formats/metadata.h"
#include "formats/reader.h"
#include "formats/vdi/vdi_layout.h"

namespace underlay::vdi {

class VdiReader final : public Reader {
 public:
  // `header` is checked, and its map lies within the file. `caches` outlives the reader.
  VdiReader(std::shared_ptr<const Source> source, const Header& header, Caches& caches)
      : header_(header), source_(source), map_(caches, std::move(source)) {}

  // Fails when an entry of the map that the disk needs is wrong, or when two of them name the same
  // stored block. Reads the whole map and takes a bit for each of its entries; may block.
  Result<void> check_map() const;

  uint64_t size() const override { return header_.disk_size; }
  uint64_t cluster_size() const override { return header_.block_size; }
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const override;
  std::optional<ParentLink> parent() const override;
  std::string identity() const override { return to_string(header_.uuid_image); }
  std::string revision() const override { return to_string(header_.uuid_last_snap); }
  std::vector<const Source*> sources() const override { return {source_.get()}; }

 private:
  bool is_differencing() const { return header_.image_type == kTypeDifferencing; }
  bool goes_on(uint32_t entry, uint32_t next, uint64_t steps) const;
  Result<uint64_t> place_of(uint64_t block, uint32_t entry, uint64_t bytes) const;

  Header header_;
  std::shared_ptr<const Source> source_;
  Metadata map_;
};

}  // namespace underlay::vdi
