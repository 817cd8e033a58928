#include "formats/vdi/vdi_layout.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace underlay::vdi {
namespace {

constexpr uint32_t kSignature = 0xbeda107f;
constexpr size_t kTextBytes = 64;
constexpr size_t kDescriptionAt = 84;
constexpr size_t kDescriptionAt0 = 80;  // in versions before 1.0
constexpr size_t kDescriptionBytes = 256;
constexpr uint32_t kMinHeaderSize = 384;
constexpr uint32_t kSectorSize = 512;
// VirtualBox's VD_VDI_IMAGE_FLAGS_MASK: zero expand, fixed, differencing. None changes what the
// blocks mean.
constexpr uint32_t kKnownFlags = 0x00030100;

void find_format_defects(const Header& header, Defects& defects) {
  if (header.version != kVersion11) {
    defects.add("version-unsupported",
                fail(ErrorKind::kUnsupported,
                     "version {}.{} is not 1.1, the one that VirtualBox writes since 1.6; convert "
                     "it with VBoxManage clonemedium",
                     header.major(), header.minor()));
  }
  if (header.major() == 0) return;  // which has no header_size, and other flags
  if (header.header_size < kMinHeaderSize) {
    defects.add("header-size-wrong", fail(ErrorKind::kMalformed, "header_size {} is less than {}",
                                          header.header_size, kMinHeaderSize));
  }
  if ((header.image_flags & ~kKnownFlags) != 0) {
    defects.add("flags-unknown",
                fail(ErrorKind::kUnsupported, "image_flags {:#010x} has bits other than {:#010x}",
                     header.image_flags, kKnownFlags));
  }
  if (header.sector_size != kSectorSize) {
    defects.add("sector-size-unsupported", fail(ErrorKind::kUnsupported, "sector_size {} is not {}",
                                                header.sector_size, kSectorSize));
  }
}

void find_block_defects(const Header& header, Defects& defects) {
  if (!std::has_single_bit(header.block_size) || header.block_size < kSectorBytes) {
    defects.add("block-size-wrong",
                fail(ErrorKind::kMalformed, "block_size {} is no power of two from {} on",
                     header.block_size, kSectorBytes));
  }
  if (header.block_extra != 0 && !std::has_single_bit(header.block_extra)) {
    defects.add("block-extra-wrong",
                fail(ErrorKind::kMalformed, "block_extra {} is neither 0 nor a power of two",
                     header.block_extra));
  }
  const uint64_t capacity = uint64_t{header.blocks_in_image} * header.block_size;
  if (header.disk_size > capacity) {
    defects.add("size-beyond-blocks",
                fail(ErrorKind::kMalformed,
                     "disk_size {} is more than blocks_in_image {} of block_size {} hold, {} bytes",
                     header.disk_size, header.blocks_in_image, header.block_size, capacity));
  }
  if (header.blocks_allocated > header.blocks_in_image) {
    defects.add("allocated-beyond-blocks",
                fail(ErrorKind::kMalformed, "blocks_allocated {} is more than blocks_in_image {}",
                     header.blocks_allocated, header.blocks_in_image));
  }
}

void find_place_defects(const Header& header, uint64_t file_size, Defects& defects) {
  if (!is_aligned(header.offset_bmap, kSectorBytes)) {
    defects.add("map-misaligned", fail(ErrorKind::kMalformed, "offset_bmap {} is no multiple of {}",
                                       header.offset_bmap, kSectorBytes));
  }
  if (!is_aligned(header.offset_data, kSectorBytes)) {
    defects.add("data-misaligned",
                fail(ErrorKind::kMalformed, "offset_data {} is no multiple of {}",
                     header.offset_data, kSectorBytes));
  }
  if (header.offset_bmap < header.header_end()) {
    defects.add("map-in-header", fail(ErrorKind::kMalformed,
                                      "offset_bmap {} lies within the header, which ends at {}",
                                      header.offset_bmap, header.header_end()));
  }
  if (header.offset_data < header.offset_bmap + header.map_bytes()) {
    defects.add(
        "data-in-map",
        fail(ErrorKind::kMalformed,
             "offset_data {} lies before the end of the block map, {} entries from byte {} on",
             header.offset_data, header.blocks_in_image, header.offset_bmap));
  }
  if (!range_within(header.offset_bmap, header.map_bytes(), file_size)) {
    defects.add("map-beyond-end",
                fail(ErrorKind::kTruncated,
                     "the block map, {} entries from byte {} on, reaches beyond the end of the "
                     "file, which has {} bytes: it is truncated or damaged",
                     header.blocks_in_image, header.offset_bmap, file_size));
  }
}

void find_type_defects(const Header& header, Defects& defects) {
  const bool has_link = !is_null(header.uuid_link);
  switch (header.image_type) {
    case kTypeDynamic:
    case kTypeStatic:
      if (!has_link) return;
      return defects.add(
          "link-unexpected",
          fail(ErrorKind::kMalformed,
               "image_type {} has no parent, but uuid_link names one, {}: whether blocks that "
               "were never written are zeros or the parent's is not known",
               header.image_type, to_string(header.uuid_link)));
    case kTypeDifferencing:
      if (has_link) return;
      return defects.add(
          "link-missing",
          fail(ErrorKind::kMalformed,
               "is a differencing image, but uuid_link is null: its parent is not known"));
    case kTypeUndo:
      return defects.add(
          "type-undo",
          fail(ErrorKind::kUnsupported,
               "is an undo image (image_type {}), of which it is not specified what its blocks "
               "mean beside its parent's; serve the image that it belongs to",
               kTypeUndo));
    default:
      return defects.add(
          "type-unknown",
          fail(ErrorKind::kUnsupported,
               "image_type {} is none of dynamic ({}), static ({}), differencing ({})",
               header.image_type, kTypeDynamic, kTypeStatic, kTypeDifferencing));
  }
}

// VDIHEADER0. What later versions state is what this one means.
Header load_header_0(ByteSpan bytes, uint32_t version) {
  return Header{
      .version = version,
      .image_type = load_le<uint32_t>(bytes, 72),
      .image_flags = load_le<uint32_t>(bytes, 76),
      .sector_size = load_le<uint32_t>(bytes, 348),
      .disk_size = load_le<uint64_t>(bytes, 352),
      .block_size = load_le<uint32_t>(bytes, 360),
      .blocks_in_image = load_le<uint32_t>(bytes, 364),
      .blocks_allocated = load_le<uint32_t>(bytes, 368),
      .uuid_image = guid_at(bytes, 372),
      .uuid_last_snap = guid_at(bytes, 388),
      .uuid_link = guid_at(bytes, 404),
  };
}

}  // namespace

std::string to_string(const Guid& uuid) {
  return is_null(uuid) ? "" : to_text(uuid, GuidOrder::kLittleEndian);
}

Signs find_signs(ByteSpan head) {
  if (head.size() < kPreHeaderBytes) return Signs::kNone;
  if (load_le<uint32_t>(head, kTextBytes) == kSignature) return Signs::kSignature;
  const std::string_view text = as_text(head.first(kTextBytes));
  const bool has_text =
      text.starts_with("<<< ") && text.find(" Disk Image >>>") != std::string_view::npos;
  return has_text ? Signs::kDamaged : Signs::kNone;
}

Header load_header(ByteSpan bytes) {
  assert(bytes.size() == kHeaderBytes);
  const auto version = load_le<uint32_t>(bytes, 68);
  if (version >> 16 == 0) return load_header_0(bytes, version);
  return Header{
      .version = version,
      .header_size = load_le<uint32_t>(bytes, 72),
      .image_type = load_le<uint32_t>(bytes, 76),
      .image_flags = load_le<uint32_t>(bytes, 80),
      .offset_bmap = load_le<uint32_t>(bytes, 340),
      .offset_data = load_le<uint32_t>(bytes, 344),
      .sector_size = load_le<uint32_t>(bytes, 360),
      .disk_size = load_le<uint64_t>(bytes, 368),
      .block_size = load_le<uint32_t>(bytes, 376),
      .block_extra = load_le<uint32_t>(bytes, 380),
      .blocks_in_image = load_le<uint32_t>(bytes, 384),
      .blocks_allocated = load_le<uint32_t>(bytes, 388),
      .uuid_image = guid_at(bytes, 392),
      .uuid_last_snap = guid_at(bytes, 408),
      .uuid_link = guid_at(bytes, 424),
      .uuid_parent = guid_at(bytes, 440),
  };
}

std::string text_of(ByteSpan bytes) {
  const std::string_view text = as_text(bytes.first(kTextBytes));
  return std::string(text.substr(0, text.find_first_of(std::string_view("\n\0", 2))));
}

std::string description_of(ByteSpan bytes, const Header& header) {
  const size_t at = header.major() == 0 ? kDescriptionAt0 : kDescriptionAt;
  const std::string_view text = as_text(bytes.subspan(at, kDescriptionBytes));
  return std::string(text.substr(0, text.find('\0')));
}

Defects header_defects(const Header& header, uint64_t file_size) {
  Defects defects;
  find_format_defects(header, defects);
  if (header.major() == 0) return defects;  // whose places are not stated
  find_block_defects(header, defects);
  find_place_defects(header, file_size, defects);
  find_type_defects(header, defects);
  return defects;
}

bool is_well_placed(const Header& header, uint64_t file_size, uint32_t entry, uint64_t bytes) {
  const auto behind = checked_mul<uint64_t>(entry, header.stored_block_bytes());
  const uint64_t first = uint64_t{header.offset_data} + header.block_extra;
  return entry < header.blocks_allocated && behind && range_within(first, *behind, file_size) &&
         range_within(first + *behind, bytes, file_size);
}

Result<uint64_t> place_of_block(const Header& header, uint64_t file_size, uint64_t block,
                                uint32_t entry, uint64_t bytes) {
  if (entry >= header.blocks_allocated) {
    return in_file(fail(ErrorKind::kMalformed,
                        "block map entry {} is stored block {}, but blocks_allocated is {}: the "
                        "image is damaged",
                        block, entry, header.blocks_allocated),
                   "", header.entry_offset(block));
  }
  if (!is_well_placed(header, file_size, entry, bytes)) {
    return in_file(fail(ErrorKind::kTruncated,
                        "block map entry {} is stored block {}, which reaches beyond the end of "
                        "the file, {} bytes: it is truncated or damaged",
                        block, entry, file_size),
                   "", header.entry_offset(block));
  }
  return uint64_t{header.offset_data} + header.block_extra + entry * header.stored_block_bytes();
}

Result<Header> parse_header(ByteSpan bytes, uint64_t file_size) {
  if (find_signs(bytes) != Signs::kSignature) {
    return fail(ErrorKind::kMalformed, "is no VDI: its signature is {:#010x}, not {:#010x}",
                load_le<uint32_t>(bytes, kTextBytes), kSignature);
  }
  const Header header = load_header(bytes);
  TRY(header_defects(header, file_size).refusal());
  return header;
}

}  // namespace underlay::vdi
