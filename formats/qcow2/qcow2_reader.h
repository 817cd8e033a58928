// The mapping of an opened qcow2 image: guest offset -> L1 entry -> L2 entry -> extent.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "formats/encryption/sector_cipher.h"
#include "formats/metadata.h"
#include "formats/qcow2/qcow2_entries.h"
#include "formats/qcow2/qcow2_layout.h"
#include "formats/qcow2/qcow2_metadata_places.h"
#include "formats/reader.h"

namespace underlay {

// What an opened image consists of; all of it checked by qcow2.cc.
struct Qcow2Parts {
  std::shared_ptr<const Source> file;       // the tables, and the clusters unless `data_file`
  std::shared_ptr<const Source> data_file;  // null when there is none
  Qcow2Header header;
  Qcow2L1 l1;  // the active disk's or a snapshot's
  std::optional<ParentLink> parent;
  std::unique_ptr<const SectorCipher> cipher;  // null when clusters are not encrypted
  std::vector<std::byte> bitmaps;              // the bitmaps extension, empty when there is none
};

class Qcow2Reader final : public Reader {
 public:
  // `caches` outlives the reader. REQUIRES: check_qcow2_l1(parts.header, parts.l1).
  Qcow2Reader(Qcow2Parts parts, Caches& caches)
      : parts_(std::move(parts)),
        caches_(caches),
        tables_(caches, parts_.file),
        places_(parts_.header, parts_.l1) {}

  // Fails when the L1 table, or an L2 table that it names, cannot be where it is said to be, and
  // when a cluster lies beyond the end of its file. Reads the L1 table only when it has at most
  // kMaxCheckedL1Bytes, and at most kMaxCheckedL2Bytes of L2 tables; what is not looked at is
  // checked at use.
  Result<void> check_tables();
  static constexpr uint64_t kMaxCheckedL1Bytes = 1 << 20;
  static constexpr uint64_t kMaxCheckedL2Bytes = 1 << 20;
  // Encrypted clusters are decrypted, and kept, in pieces of at most this size.
  static constexpr uint64_t kMaxDecryptedBytes = 64 << 10;

  uint64_t size() const override { return parts_.l1.disk_size; }
  uint64_t cluster_size() const override { return parts_.header.cluster_size(); }
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const override;
  Result<void> load_cluster(const Extent& extent, MutableByteSpan out) const override;
  std::optional<ParentLink> parent() const override { return parts_.parent; }
  Result<std::unique_ptr<const DirtyBitmap>> dirty_bitmap(std::string_view name) const override;
  std::vector<const Source*> sources() const override;

 private:
  // Where clusters lie.
  const Source& cluster_file() const { return parts_.data_file ? *parts_.data_file : *parts_.file; }

  Result<void> check_clusters(uint64_t l2_offset, uint64_t guest_offset) const;
  Result<uint64_t> l2_table_at(const MetadataSlice& l1, uint64_t entry_offset) const;
  Result<Extent> map_without_l2(const MetadataSlice& l1, uint64_t entry_offset, uint64_t offset,
                                uint64_t length) const;
  Result<Extent> map_with_l2(uint64_t l2_offset, uint64_t offset, uint64_t length,
                             MapFor purpose) const;
  Result<Extent> map_cluster(const MetadataSlice& l2, uint64_t l2_offset, uint64_t entry_offset,
                             uint64_t offset) const;
  Result<Extent> finish(Extent extent, uint64_t offset, uint64_t length) const;
  Result<void> load_decrypted(const Extent& extent, MutableByteSpan out) const;
  Extent as_decrypted(Extent extent, uint64_t offset) const;

  Qcow2Parts parts_;
  Caches& caches_;
  Metadata tables_;
  Qcow2MetadataPlaces places_;  // whole since check_tables()
};

}  // namespace underlay
