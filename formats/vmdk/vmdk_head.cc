#include "formats/vmdk/vmdk_head.h"

#include <algorithm>

namespace underlay {
namespace {

class HeadReader {
 public:
  explicit HeadReader(const Source& source) : source_(source) {}

  Result<VmdkHead> read() {
    head_.magic = vmdk_magic(TRY(read_at(0, std::min<uint64_t>(8, source_.size()))));
    switch (head_.magic) {
      case VmdkMagic::kSparse:
        TRY(read_hosted());
        break;
      case VmdkMagic::kCowd:
      case VmdkMagic::kSeSparse:
        TRY(read_esx());
        break;
      case VmdkMagic::kNone:
        TRY(read_descriptor_file());
        break;
    }
    return std::move(head_);
  }

 private:
  Result<std::vector<std::byte>> read_at(uint64_t offset, uint64_t length) const {
    std::vector<std::byte> bytes(static_cast<size_t>(length));
    TRY(source_.read_at(offset, bytes));
    return bytes;
  }

  void add(Finding::Kind kind, std::string_view code, std::string message,
           std::optional<uint64_t> offset) {
    head_.findings.push_back(
        {.kind = kind, .code = std::string(code), .message = std::move(message), .offset = offset});
  }
  void refuse(std::string_view code, std::string message,
              std::optional<uint64_t> offset = std::nullopt) {
    add(Finding::Kind::kCorruption, code, std::move(message), offset);
  }

  // ---- sparse files ----

  Result<void> read_hosted() {
    if (source_.size() < kVmdkSectorBytes) {
      return fail(ErrorKind::kTruncated,
                  "a sparse extent begins with a header of {} bytes; {} exist", kVmdkSectorBytes,
                  source_.size());
    }
    const auto bytes = TRY(read_at(0, kVmdkSectorBytes));
    head_.header = load_vmdk_sparse_header(bytes);
    head_.has_footer = head_.header->gd_offset == kVmdkGdAtEnd;
    const auto first = parse_vmdk_sparse_header(bytes);
    if (!first) {
      refuse(vmdk_header_code(first.error()), first.error().message, 0);
    } else if (const auto whole = read_vmdk_sparse_header(source_)) {
      compare_footer(*first, *whole);
      head_.header = *whole;
      if (whole->capacity > 0) head_.extent = hosted_sparse_file(*whole);
    } else if (whole.error().kind == ErrorKind::kIo) {
      return Failure(whole.error());
    } else {
      refuse("footer", whole.error().message);
    }
    if (head_.header->unclean_shutdown) head_.findings.push_back(vmdk_unclean_shutdown());
    return read_embedded_descriptor();
  }

  // The footer counts. Programs that read no footer see what the header says.
  void compare_footer(const VmdkSparseHeader& first, const VmdkSparseHeader& footer) {
    if (first.version == footer.version && first.flags == footer.flags &&
        first.descriptor_offset == footer.descriptor_offset &&
        first.descriptor_size == footer.descriptor_size) {
      return;
    }
    add(Finding::Kind::kNotice, "footer-differs",
        fmt::format(
            "header (version {}, flags {:#x}, descriptor of {} sectors at sector {}) and "
            "footer (version {}, flags {:#x}, descriptor of {} sectors at sector {}) differ",
            first.version, first.flags, first.descriptor_size, first.descriptor_offset,
            footer.version, footer.flags, footer.descriptor_size, footer.descriptor_offset),
        std::nullopt);
  }

  Result<void> read_embedded_descriptor() {
    const VmdkSparseHeader& header = *head_.header;
    if (header.descriptor_size == 0) return lone_extent();
    const auto offset = checked_mul(header.descriptor_offset, kVmdkSectorBytes);
    const auto length = checked_mul(header.descriptor_size, kVmdkSectorBytes);
    if (!offset || !length || !range_within(*offset, *length, source_.size())) {
      refuse("descriptor-beyond-end",
             fmt::format("descriptor ({} sectors at sector {}) lies beyond the end of the file, "
                         "which has {} bytes: it is truncated",
                         header.descriptor_size, header.descriptor_offset, source_.size()),
             28);
      return lone_extent();
    }
    const auto bytes = TRY(read_at(*offset, std::min(*length, kVmdkMaxDescriptorBytes)));
    // Some writers leave room for a descriptor in each extent.
    if (bytes.front() == std::byte{0}) return lone_extent();
    parse_descriptor(as_text(bytes), *offset);
    if (header.capacity > 0) check_own_extent();
    return {};
  }

  void check_own_extent() {
    const auto& lines = head_.descriptor->extents;
    if (lines.size() != 1 || lines[0].kind != VmdkExtentLine::Kind::kSparse) {
      refuse(
          "embedded-extents",
          fmt::format("embedded descriptor has {} extents: it must have one, SPARSE", lines.size()),
          head_.descriptor_offset);
    }
    const uint64_t capacity = head_.header->capacity;
    const uint64_t sectors = head_.sectors();
    if (capacity < sectors) {
      refuse("capacity-too-small",
             fmt::format("capacity is {} sectors, but the descriptor gives the extent {}", capacity,
                         sectors),
             12);
    } else if (capacity > sectors) {
      add(Finding::Kind::kNotice, "sizes-differ",
          fmt::format("capacity is {} sectors, but the descriptor gives the extent {}: that counts "
                      "here, but other programs show the whole capacity",
                      capacity, sectors),
          12);
    }
  }

  Result<void> read_esx() {
    if (const auto extent = read_vmdk_sparse_file(source_)) {
      head_.extent = *extent;
      if (extent->unclean_shutdown) head_.findings.push_back(vmdk_unclean_shutdown());
    } else if (extent.error().kind == ErrorKind::kIo) {
      return Failure(extent.error());
    } else {
      refuse(vmdk_header_code(extent.error()), extent.error().message, 0);
    }
    return lone_extent();
  }

  Result<void> lone_extent() {
    refuse("lone-extent",
           "is one extent of an image, without a descriptor: open the descriptor file that names "
           "it");
    return {};
  }

  // ---- the descriptor ----

  Result<void> read_descriptor_file() {
    const auto bytes = TRY(read_at(0, std::min(source_.size(), kVmdkMaxDescriptorBytes)));
    if (vmdk_descriptor_signs(as_text(bytes)) == VmdkDescriptorSigns::kNone) {
      return fail(ErrorKind::kMalformed,
                  "is no vmdk image: it begins neither with \"KDMV\" nor as a descriptor; a flat "
                  "extent is opened by its descriptor");
    }
    if (source_.size() > kVmdkMaxDescriptorBytes) {
      refuse("descriptor-size", fmt::format("descriptor has {} bytes, above the limit of {}",
                                            source_.size(), kVmdkMaxDescriptorBytes));
    }
    parse_descriptor(as_text(bytes), 0);
    return {};
  }

  void parse_descriptor(std::string_view text, uint64_t offset) {
    std::vector<Defect> problems;
    head_.descriptor = describe_vmdk_descriptor(text, problems);
    head_.descriptor_offset = offset;
    for (Defect& problem : problems) {
      refuse(problem.code, std::move(problem.error.message), offset);
    }
  }

  const Source& source_;
  VmdkHead head_;
};

}  // namespace

uint64_t VmdkHead::sectors() const {
  uint64_t sum = 0;
  if (descriptor) {
    for (const VmdkExtentLine& line : descriptor->extents) {
      sum = std::min(sum + line.sectors, kVmdkMaxSectors);
    }
  }
  if (sum == 0 && header) sum = header->capacity;
  if (sum == 0 && extent) sum = extent->geometry.capacity;
  return std::min(sum, kVmdkMaxSectors);
}

Result<VmdkHead> read_vmdk_head(const Source& source) {
  auto head = HeadReader(source).read();
  if (!head) return in_file(std::move(head).error(), source.name());
  return head;
}

std::string_view vmdk_header_code(const Error& error) {
  switch (error.kind) {
    case ErrorKind::kUnsupported:
      return "header-unsupported";
    case ErrorKind::kLimit:
      return "header-limit";
    default:
      return "header-damaged";
  }
}

Finding vmdk_unclean_shutdown() {
  return {.kind = Finding::Kind::kNotice,
          .code = "unclean-shutdown",
          .message =
              "the extent was not closed cleanly by its writer (uncleanShutdown): what was written "
              "last may be missing"};
}

}  // namespace underlay
