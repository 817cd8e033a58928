#include "formats/vmdk.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <functional>
#include <numeric>

#include "formats/vmdk_descriptor.h"
#include "formats/vmdk_extent.h"
#include "formats/vmdk_layout.h"
#include "formats/windows_path.h"

namespace underlay {
namespace {

// One extent of the disk.
struct DiskExtent {
  enum class Kind : uint8_t { kFlat, kSparse, kZero, kNoAccess };
  Kind kind = Kind::kZero;
  uint64_t start = 0;                    // guest offset of its first byte
  uint64_t end = 0;                      // of the byte behind it
  size_t line = 0;                       // in the descriptor
  std::shared_ptr<const Source> source;  // kFlat, kSparse
  uint64_t flat_offset = 0;              // kFlat: byte in the file
  std::unique_ptr<const VmdkSparseExtent> sparse;
};

class VmdkReader final : public Reader {
 public:
  // `extents` are in order, without gaps, at least one.
  VmdkReader(std::shared_ptr<const Source> file, VmdkDescriptor descriptor,
             std::vector<DiskExtent> extents)
      : file_(std::move(file)), descriptor_(std::move(descriptor)), extents_(std::move(extents)) {}

  uint64_t size() const override { return extents_.back().end; }

  uint64_t cluster_size() const override {
    uint64_t smallest = 0;
    for (const DiskExtent& extent : extents_) {
      const uint64_t grain = extent.sparse ? extent.sparse->grain_bytes() : 0;
      if (grain > 0 && (smallest == 0 || grain < smallest)) smallest = grain;
    }
    return smallest;
  }

  Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const override {
    const DiskExtent& disk_extent = extent_at(offset);
    length = std::min(length, disk_extent.end - offset);
    Extent extent = TRY(map_within(disk_extent, offset - disk_extent.start, length, purpose));
    if (extent.kind == Extent::Kind::kCompressed) extent.cluster_start += disk_extent.start;
    return extent;
  }

  Result<void> load_cluster(const Extent& extent, MutableByteSpan out) const override {
    const DiskExtent& disk_extent = extent_at(extent.cluster_start);
    return disk_extent.sparse->load_grain(extent.cluster_start - disk_extent.start,
                                          extent.source_offset, out);
  }

  // Hints of Windows hosts have backslashes; absolute ones rarely hold where the image is now, so
  // the parent is also looked for beside the child. That it is the right one is what its CID says.
  std::optional<ParentLink> parent() const override {
    if (!descriptor_.parent_cid) return std::nullopt;
    const std::string& hint = descriptor_.parent_file_name_hint;
    ParentLink link{.names = {hint}, .format = "vmdk", .identity = cid(*descriptor_.parent_cid)};
    const std::string local = name_of_windows_path(hint);
    const std::string beside =
        local.starts_with('/') ? local.substr(local.rfind('/') + 1) : std::string();
    for (const std::string& name : {local, beside}) {
      if (!name.empty() && name != hint) link.names.push_back(name);
    }
    return link;
  }

  std::string identity() const override { return descriptor_.cid ? cid(*descriptor_.cid) : ""; }

  std::vector<const Source*> sources() const override {
    std::vector<const Source*> all = {file_.get()};
    for (const DiskExtent& extent : extents_) {
      if (extent.source && extent.source != file_) all.push_back(extent.source.get());
    }
    return all;
  }

 private:
  static std::string cid(uint32_t value) { return fmt::format("{:08x}", value); }

  const DiskExtent& extent_at(uint64_t offset) const {
    const auto behind = std::upper_bound(
        extents_.begin(), extents_.end(), offset,
        [](uint64_t wanted, const DiskExtent& extent) { return wanted < extent.end; });
    assert(behind != extents_.end());
    return *behind;
  }

  // `offset` is one of the extent.
  Result<Extent> map_within(const DiskExtent& disk_extent, uint64_t offset, uint64_t length,
                            MapFor purpose) const {
    Extent extent;
    extent.length = length;
    switch (disk_extent.kind) {
      case DiskExtent::Kind::kSparse:
        return disk_extent.sparse->map(offset, length, purpose);
      case DiskExtent::Kind::kFlat:
        extent.kind = Extent::Kind::kData;
        extent.source = disk_extent.source.get();
        extent.source_offset = disk_extent.flat_offset + offset;
        return extent;
      case DiskExtent::Kind::kZero:
        extent.kind = Extent::Kind::kZero;
        return extent;
      case DiskExtent::Kind::kNoAccess:
        break;
    }
    return in_file(fail_errno(EIO,
                              "guest bytes {} to {} may not be read: descriptor line {} gives "
                              "their extent as NOACCESS",
                              disk_extent.start, disk_extent.end - 1, disk_extent.line),
                   file_->name());
  }

  std::shared_ptr<const Source> file_;  // with the descriptor
  VmdkDescriptor descriptor_;
  std::vector<DiskExtent> extents_;
};

// One opening.
class VmdkOpener {
 public:
  explicit VmdkOpener(const ImageToOpen& image) : image_(image) {}

  Result<std::unique_ptr<Reader>> open() {
    std::vector<std::byte> head(std::min<uint64_t>(8, image_.source->size()));
    TRY(image_.source->read_at(0, head));
    switch (vmdk_magic(head)) {
      case VmdkMagic::kSparse:
        return open_sparse_file();
      case VmdkMagic::kCowd:
        return fail(ErrorKind::kUnsupported,
                    "is a COWD extent (VMFSSPARSE, an ESX snapshot), which is not served; "
                    "qemu-img convert reads it");
      case VmdkMagic::kSeSparse:
        return fail(ErrorKind::kUnsupported,
                    "is a space-efficient sparse extent (SESPARSE, an ESX snapshot), which is not "
                    "served; qemu-img convert reads it");
      case VmdkMagic::kNone:
        break;
    }
    return open_descriptor_file();
  }

 private:
  // REQUIRES: length was checked against kVmdkMaxDescriptorBytes.
  Result<VmdkDescriptor> read_descriptor(uint64_t offset, uint64_t length) {
    std::vector<std::byte> bytes(static_cast<size_t>(length));
    TRY(image_.source->read_at(offset, bytes));
    // Some writers leave room for a descriptor in each extent.
    if (offset > 0 && bytes.front() == std::byte{0}) return lone_extent();
    return parse_vmdk_descriptor(as_text(bytes));
  }

  static Failure lone_extent() {
    return fail(ErrorKind::kMalformed,
                "is one extent of an image, without a descriptor: open the descriptor file that "
                "names it");
  }

  Result<std::unique_ptr<Reader>> open_descriptor_file() {
    if (image_.source->size() > kVmdkMaxDescriptorBytes) {
      return fail(ErrorKind::kMalformed,
                  "is no vmdk image: it does not begin with \"KDMV\", and its {} bytes are above "
                  "the limit of {} for a descriptor; a flat extent is opened by its descriptor",
                  image_.source->size(), kVmdkMaxDescriptorBytes);
    }
    const VmdkDescriptor descriptor = TRY(read_descriptor(0, image_.source->size()));
    return open_named_extents(descriptor);
  }

  Result<std::unique_ptr<Reader>> open_sparse_file() {
    const VmdkSparseHeader header = TRY(read_vmdk_sparse_header(*image_.source));
    if (header.descriptor_size == 0) return lone_extent();
    // Both were limited by the header's parser.
    const uint64_t offset = header.descriptor_offset * kVmdkSectorBytes;
    const uint64_t length = header.descriptor_size * kVmdkSectorBytes;
    if (!range_within(offset, length, image_.source->size())) {
      return fail(ErrorKind::kTruncated,
                  "descriptor ({} sectors at sector {}) lies beyond the end of the file, which has "
                  "{} bytes: it is truncated",
                  header.descriptor_size, header.descriptor_offset, image_.source->size());
    }
    const VmdkDescriptor descriptor = TRY(read_descriptor(offset, length));
    if (header.capacity == 0) return open_named_extents(descriptor);

    // The one extent is this file, whatever name the line has: such files get renamed.
    const auto& lines = descriptor.extents;
    if (lines.size() != 1 || lines[0].kind != VmdkExtentLine::Kind::kSparse) {
      return fail(ErrorKind::kMalformed,
                  "embedded descriptor has {} extents, the first of them of {} type: it must have "
                  "one, SPARSE",
                  lines.size(),
                  lines[0].kind == VmdkExtentLine::Kind::kSparse ? "that" : "another");
    }
    DiskExtent extent = place(lines[0]);
    TRY(open_sparse(extent, image_.source, header, lines[0].sectors));
    extents_.push_back(std::move(extent));
    return reader(descriptor);
  }

  Result<std::unique_ptr<Reader>> open_named_extents(const VmdkDescriptor& descriptor) {
    for (const VmdkExtentLine& line : descriptor.extents) {
      if (auto added = add_named_extent(line); !added) {
        return with_context(std::move(added).error(),
                            fmt::format("descriptor line {}: ", line.line));
      }
    }
    return reader(descriptor);
  }

  std::unique_ptr<Reader> reader(const VmdkDescriptor& descriptor) {
    return std::make_unique<VmdkReader>(image_.source, descriptor, std::move(extents_));
  }

  // The extent's place behind the others. The descriptor's parser has limited the sum.
  DiskExtent place(const VmdkExtentLine& line) const {
    DiskExtent extent;
    extent.start = extents_.empty() ? 0 : extents_.back().end;
    extent.end = extent.start + line.sectors * kVmdkSectorBytes;
    extent.line = line.line;
    return extent;
  }

  Result<void> add_named_extent(const VmdkExtentLine& line) {
    DiskExtent extent = place(line);
    if (line.access == VmdkExtentLine::Access::kNoAccess) {
      extent.kind = DiskExtent::Kind::kNoAccess;
    } else if (line.kind == VmdkExtentLine::Kind::kZero) {
      extent.kind = DiskExtent::Kind::kZero;
    } else {
      OpenedFile file = TRY(image_.files.open(image_.path, line.name));
      if (is_this_file(*file.source)) {
        return fail(ErrorKind::kMalformed, "the image names itself, \"{}\", as its extent",
                    printable(line.name));
      }
      if (line.kind == VmdkExtentLine::Kind::kFlat) {
        TRY(open_flat(extent, std::move(file.source), line));
      } else {
        const VmdkSparseHeader header = TRY(read_vmdk_sparse_header(*file.source));
        TRY(open_sparse(extent, std::move(file.source), header, line.sectors));
      }
    }
    extents_.push_back(std::move(extent));
    return {};
  }

  bool is_this_file(const Source& source) const {
    const auto identity = source.identity();
    return &source == image_.source.get() ||
           (identity.has_value() && identity == image_.source->identity());
  }

  static Result<void> open_flat(DiskExtent& extent, std::shared_ptr<const Source> source,
                                const VmdkExtentLine& line) {
    const uint64_t offset = line.offset * kVmdkSectorBytes;
    if (!range_within(offset, extent.end - extent.start, source->size())) {
      return in_file(fail(ErrorKind::kTruncated,
                          "the extent's {} sectors from sector {} lie beyond the end of the file, "
                          "which has {} bytes: it is truncated",
                          line.sectors, line.offset, source->size()),
                     source->name());
    }
    extent.kind = DiskExtent::Kind::kFlat;
    extent.flat_offset = offset;
    extent.source = std::move(source);
    return {};
  }

  Result<void> open_sparse(DiskExtent& extent, std::shared_ptr<const Source> source,
                           const VmdkSparseHeader& header, uint64_t sectors) {
    if (header.unclean_shutdown) {
      image_.warnings.push_back(
          fmt::format("extent \"{}\" was not closed cleanly by its writer (uncleanShutdown): what "
                      "was written last may be missing",
                      source->name()));
    }
    extent.kind = DiskExtent::Kind::kSparse;
    extent.source = source;
    extent.sparse = TRY(VmdkSparseExtent::open(std::move(source), header, sectors, image_.caches));
    return {};
  }

  const ImageToOpen& image_;
  std::vector<DiskExtent> extents_;
};

constexpr std::string_view kNotServedYet = " extent of an ESX snapshot, which is not served";

ProbeResult damaged(std::string reason) {
  return {.verdict = ProbeVerdict::kDamaged, .reason = std::move(reason)};
}

// A header with one wrong byte in its magic number.
bool nearly_sparse(ByteSpan head) {
  if (head.size() < kVmdkSectorBytes) return false;
  const std::string_view text = as_text(head);
  constexpr std::string_view kMagic = "KDMV";
  const auto right = std::inner_product(kMagic.begin(), kMagic.end(), text.begin(), 0,
                                        std::plus<>(), std::equal_to<>());
  return right == 3 &&
         text.substr(kVmdkLineEndOffset, kVmdkLineEndBytes.size()) == kVmdkLineEndBytes;
}

}  // namespace

ProbeResult probe_vmdk(const ProbeInput& input) {
  switch (vmdk_magic(input.head)) {
    case VmdkMagic::kSparse: {
      const auto header = parse_vmdk_sparse_header(input.head);
      if (header) return {.verdict = ProbeVerdict::kYes, .reason = {}};
      return damaged(header.error().message);
    }
    case VmdkMagic::kCowd:
      return damaged(fmt::format("it begins with COWD, as a VMFSSPARSE{}", kNotServedYet));
    case VmdkMagic::kSeSparse:
      return damaged(fmt::format("it begins with 0xcafebabe, as a SESPARSE{}", kNotServedYet));
    case VmdkMagic::kNone:
      break;
  }
  if (nearly_sparse(input.head)) {
    return damaged(
        "it has the line-end bytes of a sparse header, but one wrong byte in its "
        "magic number");
  }
  switch (vmdk_descriptor_signs(as_text(input.head))) {
    case VmdkDescriptorSigns::kHeader:
      return {.verdict = ProbeVerdict::kYes, .reason = {}};
    case VmdkDescriptorSigns::kLines:
      return damaged(
          "it has lines of a descriptor, but not \"# Disk DescriptorFile\" as its "
          "first");
    case VmdkDescriptorSigns::kNone:
      break;
  }
  return {};
}

Result<std::unique_ptr<Reader>> open_vmdk(const ImageToOpen& image) {
  return VmdkOpener(image).open();
}

}  // namespace underlay
