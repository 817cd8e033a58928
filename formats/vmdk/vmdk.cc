#include "formats/vmdk/vmdk.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "formats/vmdk/vmdk_descriptor.h"
#include "formats/vmdk/vmdk_extent.h"
#include "formats/vmdk/vmdk_extent_files.h"
#include "formats/vmdk/vmdk_layout.h"
#include "formats/vmdk/vmdk_reader.h"
#include "formats/vmdk/vmdk_sparse_file.h"

namespace underlay {
namespace {

// One opening.
class VmdkOpener {
 public:
  explicit VmdkOpener(const ImageToOpen& image)
      : image_(image), files_(image.files, image.path, *image.source) {}

  Result<std::unique_ptr<Reader>> open() {
    std::vector<std::byte> head(std::min<uint64_t>(8, image_.source->size()));
    TRY(image_.source->read_at(0, head));
    switch (vmdk_magic(head)) {
      case VmdkMagic::kSparse:
        return open_sparse_file();
      case VmdkMagic::kCowd:
      case VmdkMagic::kSeSparse:
        return lone_extent();  // only a descriptor says what the parent is
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
    VmdkDiskExtent extent = place(lines[0]);
    TRY(open_sparse(extent, image_.source, hosted_sparse_file(header), lines[0].sectors));
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
  VmdkDiskExtent place(const VmdkExtentLine& line) const {
    VmdkDiskExtent extent;
    extent.start = extents_.empty() ? 0 : extents_.back().end;
    extent.end = extent.start + line.sectors * kVmdkSectorBytes;
    extent.line = line.line;
    return extent;
  }

  Result<void> add_named_extent(const VmdkExtentLine& line) {
    VmdkDiskExtent extent = place(line);
    if (line.access == VmdkExtentLine::Access::kNoAccess) {
      extent.kind = VmdkDiskExtent::Kind::kNoAccess;
    } else if (line.kind == VmdkExtentLine::Kind::kZero) {
      extent.kind = VmdkDiskExtent::Kind::kZero;
    } else {
      auto source = TRY(files_.open(line));
      if (line.kind == VmdkExtentLine::Kind::kFlat) {
        TRY(check_vmdk_flat_extent(*source, line));
        extent.kind = VmdkDiskExtent::Kind::kFlat;
        extent.flat_offset = line.offset * kVmdkSectorBytes;
        extent.source = std::move(source);
      } else {
        const VmdkSparseFile sparse = TRY(read_vmdk_sparse_file(*source));
        TRY(open_sparse(extent, std::move(source), sparse, line.sectors));
      }
    }
    extents_.push_back(std::move(extent));
    return {};
  }

  Result<void> open_sparse(VmdkDiskExtent& extent, std::shared_ptr<const Source> source,
                           const VmdkSparseFile& file, uint64_t sectors) {
    extent.kind = VmdkDiskExtent::Kind::kSparse;
    extent.source = source;
    extent.sparse = TRY(
        VmdkSparseExtent::open(std::move(source), file, sectors, image_.caches, image_.warnings));
    return {};
  }

  const ImageToOpen& image_;
  VmdkExtentFiles files_;
  std::vector<VmdkDiskExtent> extents_;
};

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
      return damaged("it begins with COWD, as one extent of an ESX snapshot: open its descriptor");
    case VmdkMagic::kSeSparse:
      return damaged(
          "it begins with 0xcafebabe, as one seSparse extent of an ESX snapshot: open its "
          "descriptor");
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
