#include "formats/vmdk/vmdk_reader.h"

#include <algorithm>
#include <cassert>
#include <cerrno>

#include "formats/windows_path.h"

namespace underlay {
namespace {

std::string cid(uint32_t value) { return fmt::format("{:08x}", value); }

}  // namespace

uint64_t VmdkReader::cluster_size() const {
  uint64_t smallest = 0;
  for (const VmdkDiskExtent& extent : extents_) {
    const uint64_t grain = extent.sparse ? extent.sparse->grain_bytes() : 0;
    if (grain > 0 && (smallest == 0 || grain < smallest)) smallest = grain;
  }
  return smallest;
}

Result<Extent> VmdkReader::map(uint64_t offset, uint64_t length, MapFor purpose) const {
  const VmdkDiskExtent& disk_extent = extent_at(offset);
  length = std::min(length, disk_extent.end - offset);
  Extent extent = TRY(map_within(disk_extent, offset - disk_extent.start, length, purpose));
  if (extent.kind == Extent::Kind::kCompressed) extent.cluster_start += disk_extent.start;
  return extent;
}

Result<void> VmdkReader::load_cluster(const Extent& extent, MutableByteSpan out) const {
  const VmdkDiskExtent& disk_extent = extent_at(extent.cluster_start);
  return disk_extent.sparse->load_grain(extent.cluster_start - disk_extent.start,
                                        extent.source_offset, out);
}

// Hints of Windows hosts have backslashes; absolute ones rarely hold where the image is now, so
// the parent is also looked for beside the child. That it is the right one is what its CID says.
std::vector<std::string> vmdk_parent_names(const VmdkFileName& hint) {
  std::vector<std::string> names = {hint.name};
  const std::string local = name_of_windows_path(hint.name);
  const std::string beside =
      local.starts_with('/') ? local.substr(local.rfind('/') + 1) : std::string();
  for (const std::string& name : {local, beside, hint.as_written}) {
    if (!name.empty() && name != hint.name) names.push_back(name);
  }
  return names;
}

std::optional<ParentLink> VmdkReader::parent() const {
  if (!descriptor_.parent_cid) return std::nullopt;
  return ParentLink{.names = vmdk_parent_names(descriptor_.parent_file_name_hint),
                    .format = "vmdk",
                    .identity = cid(*descriptor_.parent_cid)};
}

std::string VmdkReader::identity() const { return descriptor_.cid ? cid(*descriptor_.cid) : ""; }

std::vector<const Source*> VmdkReader::sources() const {
  std::vector<const Source*> all = {file_.get()};
  for (const VmdkDiskExtent& extent : extents_) {
    if (extent.source && extent.source != file_) all.push_back(extent.source.get());
  }
  return all;
}

const VmdkDiskExtent& VmdkReader::extent_at(uint64_t offset) const {
  const auto behind = std::upper_bound(
      extents_.begin(), extents_.end(), offset,
      [](uint64_t wanted, const VmdkDiskExtent& extent) { return wanted < extent.end; });
  assert(behind != extents_.end());
  return *behind;
}

// `offset` is one of the extent.
Result<Extent> VmdkReader::map_within(const VmdkDiskExtent& disk_extent, uint64_t offset,
                                      uint64_t length, MapFor purpose) const {
  Extent extent;
  extent.length = length;
  switch (disk_extent.kind) {
    case VmdkDiskExtent::Kind::kSparse:
      return disk_extent.sparse->map(offset, length, purpose);
    case VmdkDiskExtent::Kind::kFlat:
      extent.kind = Extent::Kind::kData;
      extent.source = disk_extent.source.get();
      extent.source_offset = disk_extent.flat_offset + offset;
      return extent;
    case VmdkDiskExtent::Kind::kZero:
      extent.kind = Extent::Kind::kZero;
      return extent;
    case VmdkDiskExtent::Kind::kNoAccess:
      break;
  }
  return in_file(fail_errno(EIO,
                            "guest bytes {} to {} may not be read: descriptor line {} gives "
                            "their extent as NOACCESS",
                            disk_extent.start, disk_extent.end - 1, disk_extent.line),
                 file_->name());
}

}  // namespace underlay
