#include "formats/vdi_layout.h"

#include <algorithm>
#include <bit>

namespace underlay::vdi {
namespace {

constexpr uint32_t kSignature = 0xbeda107f;
constexpr uint32_t kVersion11 = 0x00010001;
constexpr size_t kTextBytes = 64;
constexpr uint32_t kMinHeaderSize = 384;
constexpr uint32_t kSectorSize = 512;
// VirtualBox's VD_VDI_IMAGE_FLAGS_MASK: zero expand, fixed, differencing. None changes what the
// blocks mean.
constexpr uint32_t kKnownFlags = 0x00030100;

Header load_header(ByteSpan bytes) {
  return Header{
      .header_size = load_le<uint32_t>(bytes, 72),
      .image_type = load_le<uint32_t>(bytes, 76),
      .offset_bmap = load_le<uint32_t>(bytes, 340),
      .offset_data = load_le<uint32_t>(bytes, 344),
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

Result<void> check_format(ByteSpan bytes, const Header& header) {
  if (const auto version = load_le<uint32_t>(bytes, 68); version != kVersion11) {
    return fail(ErrorKind::kUnsupported,
                "version {}.{} is not 1.1, the one that VirtualBox writes since 1.6; convert it "
                "with VBoxManage clonemedium",
                version >> 16, version & 0xffff);
  }
  if (header.header_size < kMinHeaderSize) {
    return fail(ErrorKind::kMalformed, "header_size {} is less than {}", header.header_size,
                kMinHeaderSize);
  }
  if (const auto flags = load_le<uint32_t>(bytes, 80); (flags & ~kKnownFlags) != 0) {
    return fail(ErrorKind::kUnsupported, "image_flags {:#010x} has bits other than {:#010x}", flags,
                kKnownFlags);
  }
  if (const auto sector_size = load_le<uint32_t>(bytes, 360); sector_size != kSectorSize) {
    return fail(ErrorKind::kUnsupported, "sector_size {} is not {}", sector_size, kSectorSize);
  }
  return {};
}

Result<void> check_blocks(const Header& header) {
  if (!std::has_single_bit(header.block_size) || header.block_size < kSectorBytes) {
    return fail(ErrorKind::kMalformed, "block_size {} is no power of two from {} on",
                header.block_size, kSectorBytes);
  }
  if (header.block_extra != 0 && !std::has_single_bit(header.block_extra)) {
    return fail(ErrorKind::kMalformed, "block_extra {} is neither 0 nor a power of two",
                header.block_extra);
  }
  const uint64_t capacity = uint64_t{header.blocks_in_image} * header.block_size;
  if (header.disk_size > capacity) {
    return fail(ErrorKind::kMalformed,
                "disk_size {} is more than blocks_in_image {} of block_size {} hold, {} bytes",
                header.disk_size, header.blocks_in_image, header.block_size, capacity);
  }
  if (header.blocks_allocated > header.blocks_in_image) {
    return fail(ErrorKind::kMalformed, "blocks_allocated {} is more than blocks_in_image {}",
                header.blocks_allocated, header.blocks_in_image);
  }
  return {};
}

Result<void> check_places(const Header& header) {
  const auto check_aligned = [](std::string_view field, uint32_t value) -> Result<void> {
    if (is_aligned(value, kSectorBytes)) return {};
    return fail(ErrorKind::kMalformed, "{} {} is no multiple of {}", field, value, kSectorBytes);
  };
  TRY(check_aligned("offset_bmap", header.offset_bmap));
  TRY(check_aligned("offset_data", header.offset_data));
  if (header.offset_bmap < header.header_end()) {
    return fail(ErrorKind::kMalformed, "offset_bmap {} lies within the header, which ends at {}",
                header.offset_bmap, header.header_end());
  }
  if (header.offset_data < header.offset_bmap + header.map_bytes()) {
    return fail(ErrorKind::kMalformed,
                "offset_data {} lies before the end of the block map, {} entries from byte {} on",
                header.offset_data, header.blocks_in_image, header.offset_bmap);
  }
  return {};
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

Result<Header> parse_header(ByteSpan bytes) {
  if (find_signs(bytes) != Signs::kSignature) {
    return fail(ErrorKind::kMalformed, "is no VDI: its signature is {:#010x}, not {:#010x}",
                load_le<uint32_t>(bytes, kTextBytes), kSignature);
  }
  const Header header = load_header(bytes);
  TRY(check_format(bytes, header));
  TRY(check_blocks(header));
  TRY(check_places(header));
  return header;
}

}  // namespace underlay::vdi
