#include "formats/qcow2/qcow2_refcounts.h"

#include <algorithm>
#include <limits>

namespace underlay {
namespace {

constexpr auto kMaxOffset = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());

}  // namespace

Result<void> Qcow2Refcounts::check_header(const Qcow2Header& header) {
  if (header.refcount_order > Qcow2Header::kMaxRefcountOrder) {
    return fail(ErrorKind::kMalformed, "refcount_order is {}: must be at most {}",
                header.refcount_order, Qcow2Header::kMaxRefcountOrder);
  }
  const uint64_t bytes = table_bytes(header);
  if (bytes > kMaxTableBytes) {
    return fail(ErrorKind::kLimit, "the refcount table has {} bytes: the limit is {}", bytes,
                kMaxTableBytes);
  }
  if (!is_aligned(header.refcount_table_offset, header.cluster_size()) ||
      !range_within(header.refcount_table_offset, bytes, kMaxOffset)) {
    return fail(ErrorKind::kMalformed,
                "refcount_table_offset is {}: must be a multiple of {} (a cluster) and below 2^63",
                header.refcount_table_offset, header.cluster_size());
  }
  return {};
}

Result<Qcow2RefcountTableBits> Qcow2Refcounts::entry(uint64_t index) const {
  const uint64_t at = entry_offset(index);
  if (!range_within(at, 8, bytes_.source().size())) return Qcow2RefcountTableBits{};
  const MetadataSlice slice = TRY(bytes_.slice_at(at, 8, MapFor::kRead));
  return split_qcow2_refcount_table_entry(slice.be<uint64_t>(at));
}

Result<uint64_t> Qcow2Refcounts::at(uint64_t cluster) {
  const uint64_t index = cluster >> block_bits_;
  if (index_ != index) {
    index_.reset();
    block_ = index < table_entries() ? TRY(entry(index)).offset : 0;
    index_ = index;
  }
  if (block_ == 0) return 0;
  if (!is_aligned(block_, header_.cluster_size()) || block_ > kMaxOffset) {
    return in_file(fail(ErrorKind::kMalformed,
                        "refcount table entry {} names a block at {}: must be a multiple of {} (a "
                        "cluster) and below 2^63",
                        index, block_, header_.cluster_size()),
                   bytes_.source().name(), entry_offset(index));
  }
  const uint64_t bit = (cluster & (block_clusters() - 1)) << header_.refcount_order;
  return load(block_ + bit / 8, static_cast<uint32_t>(bit % 8));
}

Result<uint64_t> Qcow2Refcounts::load(uint64_t offset, uint32_t shift) {
  const uint32_t bits = uint32_t{1} << header_.refcount_order;
  const size_t width = std::max<size_t>(bits / 8, 1);
  if (!range_within(offset, width, bytes_.source().size())) return 0;
  if (!slice_ || !slice_->holds(offset, width)) {
    slice_ = TRY(bytes_.slice_at(offset, width, MapFor::kRead));
  }
  switch (width) {
    case 8:
      return slice_->be<uint64_t>(offset);
    case 4:
      return slice_->be<uint32_t>(offset);
    case 2:
      return slice_->be<uint16_t>(offset);
    default:
      return uint64_t{slice_->be<uint8_t>(offset)} >> shift & max();
  }
}

}  // namespace underlay
