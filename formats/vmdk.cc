#include "formats/vmdk.h"

#include <algorithm>
#include <cerrno>
#include <functional>
#include <numeric>

#include "formats/vmdk_descriptor.h"
#include "formats/vmdk_extent.h"
#include "formats/vmdk_layout.h"
#include "formats/vmdk_reader.h"
#include "formats/vmdk_sparse_file.h"

namespace underlay {
namespace {

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
      OpenedFile file = TRY(open_file(line.file));
      if (is_same_file(*file.source, *image_.source)) {
        return fail(ErrorKind::kMalformed, "the image names itself, \"{}\", as its extent",
                    printable(line.file.name));
      }
      TRY(check_overlap(*file.source, line));
      if (line.kind == VmdkExtentLine::Kind::kFlat) {
        TRY(open_flat(extent, std::move(file.source), line));
      } else {
        const VmdkSparseFile sparse = TRY(read_vmdk_sparse_file(*file.source));
        TRY(open_sparse(extent, std::move(file.source), sparse, line.sectors));
      }
    }
    extents_.push_back(std::move(extent));
    return {};
  }

  // By its name in UTF-8; when there is no such file, by the bytes of the name in the descriptor.
  Result<OpenedFile> open_file(const VmdkFileName& file) const {
    const auto is_missing = [](const Error& error) {
      return error.kind == ErrorKind::kNotFound || error.sys_errno == ENOENT;
    };
    auto opened = image_.files.open(image_.path, file.name);
    if (opened || file.as_written.empty() || !is_missing(opened.error())) return opened;
    auto second = image_.files.open(image_.path, file.as_written);
    return second || !is_missing(second.error()) ? std::move(second) : std::move(opened);
  }

  static bool is_same_file(const Source& a, const Source& b) {
    const auto identity = a.identity();
    return &a == &b || (identity.has_value() && identity == b.identity());
  }

  // Two extents never share bytes: what a guest writes to one would show in the other.
  Result<void> check_overlap(const Source& source, const VmdkExtentLine& line) {
    FileUse use{.source = &source, .identity = source.identity(), .line = line.line};
    use.range.length = ~uint64_t{0};  // sparse: the whole file
    if (line.kind == VmdkExtentLine::Kind::kFlat) {
      use.range = {.offset = line.offset * kVmdkSectorBytes,
                   .length = line.sectors * kVmdkSectorBytes};
    }
    for (const FileUse& other : uses_) {
      const bool same =
          other.source == use.source || (use.identity && other.identity == use.identity);
      if (!same || !use.range.overlaps(other.range)) continue;
      return fail(ErrorKind::kMalformed,
                  "the extent in \"{}\" overlaps the one of descriptor line {}: the descriptor is "
                  "damaged",
                  printable(line.file.name), other.line);
    }
    uses_.push_back(use);
    return {};
  }

  static Result<void> open_flat(VmdkDiskExtent& extent, std::shared_ptr<const Source> source,
                                const VmdkExtentLine& line) {
    const uint64_t offset = line.offset * kVmdkSectorBytes;
    if (!range_within(offset, extent.end - extent.start, source->size())) {
      return in_file(fail(ErrorKind::kTruncated,
                          "the extent's {} sectors from sector {} lie beyond the end of the file, "
                          "which has {} bytes: it is truncated",
                          line.sectors, line.offset, source->size()),
                     source->name());
    }
    extent.kind = VmdkDiskExtent::Kind::kFlat;
    extent.flat_offset = offset;
    extent.source = std::move(source);
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

  // What an extent takes of a file. The source is alive in extents_.
  struct FileUse {
    const Source* source = nullptr;
    std::optional<FileIdentity> identity{};
    FileRange range{};
    size_t line = 0;
  };

  const ImageToOpen& image_;
  std::vector<VmdkDiskExtent> extents_;
  std::vector<FileUse> uses_;
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
