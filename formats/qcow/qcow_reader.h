// The mapping of an opened qcow image: guest offset -> L1 entry -> L2 entry -> extent. What lies in
// the image is found here; its bytes are libqcow's to fetch.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "formats/file_range.h"
#include "formats/libyal/libyal_file.h"
#include "formats/metadata.h"
#include "formats/qcow/qcow_layout.h"
#include "formats/reader.h"

namespace underlay::qcow {

class QcowReader final : public Reader {
 public:
  // `caches` outlives the reader. REQUIRES: the L1 table lies within the file.
  QcowReader(std::shared_ptr<const Source> file, const Header& header,
             std::optional<ParentLink> parent, Caches& caches)
      : file_(file),
        header_(header),
        parent_(std::move(parent)),
        tables_(caches, std::move(file)) {}

  // Fails when an L2 table that the L1 table names cannot be where it is said to be. Reads the
  // whole L1 table, at most kMaxL1Bytes, as libqcow does.
  Result<void> check_tables() const;
  // Gives the checked file to libqcow. REQUIRES: check_tables(), before the first load_cluster().
  Result<void> open_library(const libyal::Library& library);

  uint64_t size() const override { return header_.size; }
  uint64_t cluster_size() const override { return header_.cluster_size(); }
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const override;
  // libqcow takes a stream that ends early for a whole cluster, with what its memory held before
  // behind the end; so the stream is unpacked here first.
  Result<void> load_cluster(const Extent& extent, MutableByteSpan out) const override;
  std::optional<ParentLink> parent() const override { return parent_; }
  std::vector<const Source*> sources() const override { return {file_.get()}; }

 private:
  bool overlaps_metadata(const FileRange& range) const;
  Result<uint64_t> l2_table_at(const MetadataSlice& l1, uint64_t entry_offset) const;
  Extent run_without_l2(const MetadataSlice& l1, uint64_t entry_offset, uint64_t offset,
                        uint64_t length) const;
  Extent run_without_clusters(const MetadataSlice& l2, uint64_t entry_offset, uint64_t table_end,
                              uint64_t offset, uint64_t length) const;
  Result<Extent> stored_cluster(const Cluster& cluster, uint64_t l2_offset, uint64_t offset,
                                uint64_t length) const;

  std::shared_ptr<const Source> file_;
  Header header_;
  std::optional<ParentLink> parent_;
  Metadata tables_;
  std::unique_ptr<libyal::LibraryFile> library_;
};

}  // namespace underlay::qcow
