#include "formats/vhd/vhd_layout.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

namespace underlay::vhd {
namespace {

constexpr std::string_view kDisabledCookie = "v_poison";
constexpr std::string_view kBatmapCookie = "tdbatmap";
constexpr size_t kCookieBytes = 8;
constexpr uint32_t kMajorVersion = 1;  // the upper half of the version fields
constexpr size_t kHiddenAt = 85;
constexpr size_t kKeyhashCookieAt = 29;            // of the batmap header
constexpr uint32_t kBatmapVersion11 = 0x00010001;  // summed with the compiler's signed char
constexpr uint32_t kBatmapVersion12 = 0x00010002;

std::string_view cookie_of(ByteSpan bytes) { return as_text(bytes.first(kCookieBytes)); }

uint32_t sum_of(ByteSpan bytes) {
  uint32_t sum = 0;
  for (const std::byte byte : bytes) sum += std::to_integer<uint32_t>(byte);
  return sum;
}

template <size_t N>
std::array<char, N> characters_at(ByteSpan bytes, size_t offset) {
  std::array<char, N> characters;
  std::memcpy(characters.data(), bytes.data() + offset, N);
  return characters;
}

Footer load_footer(ByteSpan bytes) {
  return Footer{
      .data_offset = load_be<uint64_t>(bytes, 16),
      .creator_application = characters_at<4>(bytes, 28),
      .creator_version = load_be<uint32_t>(bytes, 32),
      .current_size = load_be<uint64_t>(bytes, 48),
      .cylinders = load_be<uint16_t>(bytes, 56),
      .heads = load_be<uint8_t>(bytes, 58),
      .sectors_per_track = load_be<uint8_t>(bytes, 59),
      .disk_type = load_be<uint32_t>(bytes, 60),
      .unique_id = guid_at(bytes, 68),
  };
}

DynamicHeader load_dynamic_header(ByteSpan bytes) {
  DynamicHeader header;
  header.table_offset = load_be<uint64_t>(bytes, 16);
  header.max_table_entries = load_be<uint32_t>(bytes, 28);
  header.block_size = load_be<uint32_t>(bytes, 32);
  header.parent_unique_id = guid_at(bytes, kParentIdAt);
  header.parent_time_stamp = load_be<uint32_t>(bytes, kParentTimeStampAt);
  std::copy_n(bytes.begin() + kParentNameAt, kParentNameBytes, header.parent_unicode_name.begin());
  for (size_t i = 0; i < kParentLocators; ++i) {
    const ByteSpan locator = bytes.subspan(kLocatorsAt + i * kLocatorBytes, kLocatorBytes);
    header.locators[i] = ParentLocator{.platform_code = characters_at<4>(locator, 0),
                                       .data_space = load_be<uint32_t>(locator, 4),
                                       .data_length = load_be<uint32_t>(locator, 8),
                                       .data_offset = load_be<uint64_t>(locator, 16)};
  }
  return header;
}

// tapdisk 0.1 and 1.1 set their "hidden" byte without a new checksum.
bool checksum_holds(ByteSpan bytes, const Footer& footer) {
  const auto stored = load_be<uint32_t>(bytes, kFooterChecksumAt);
  const uint32_t computed = checksum_of(bytes, kFooterChecksumAt);
  if (stored == computed) return true;
  const bool may_be_old =
      footer.creator_version == kTapdisk01 || footer.creator_version == kTapdisk11;
  return footer.is_by_tapdisk() && may_be_old &&
         stored == computed + std::to_integer<uint32_t>(bytes[kHiddenAt]);
}

// Are bytes without the cookie those of a footer nevertheless? Either the rest of the footer is
// whole, or one byte of the cookie is wrong and the fields make sense.
bool cookie_is_damaged(ByteSpan bytes, const Footer& footer) {
  const std::string_view cookie = cookie_of(bytes);
  const uint32_t with_cookie = checksum_of(bytes, kFooterChecksumAt) + sum_of(as_bytes(cookie)) -
                               sum_of(as_bytes(kFooterCookie));
  if (load_be<uint32_t>(bytes, kFooterChecksumAt) == with_cookie) return true;
  size_t wrong = 0;
  for (size_t i = 0; i < kCookieBytes; ++i) wrong += cookie[i] != kFooterCookie[i] ? 1u : 0u;
  return wrong == 1 && load_be<uint32_t>(bytes, 12) >> 16 == kMajorVersion &&
         (footer.disk_type == kTypeFixed || footer.is_sparse());
}

}  // namespace

uint32_t checksum_of(ByteSpan bytes, size_t at) {
  return ~(sum_of(bytes) - sum_of(bytes.subspan(at, 4)));
}

std::string to_string(const Guid& id) { return to_text(id, GuidOrder::kBigEndian); }

uint64_t Footer::chs_size() const {
  return uint64_t{cylinders} * heads * sectors_per_track * kSectorBytes;
}

bool Footer::geometry_is_saturated() const {
  return chs_size() == uint64_t{65535} * 16 * 255 * kSectorBytes;
}

bool Footer::creator_means_current_size() const {
  using namespace std::string_view_literals;
  constexpr std::array kCreators = {"win "sv, "d2v "sv, "tap\0"sv, "CTXS"sv, "qem2"sv};
  return std::find(kCreators.begin(), kCreators.end(), creator()) != kCreators.end();
}

FooterDetails footer_details(ByteSpan bytes) {
  return FooterDetails{
      .features = load_be<uint32_t>(bytes, 8),
      .file_format_version = load_be<uint32_t>(bytes, 12),
      .time_stamp = load_be<uint32_t>(bytes, 24),
      .creator_host_os = characters_at<4>(bytes, 36),
      .original_size = load_be<uint64_t>(bytes, 40),
      .saved_state = load_be<uint8_t>(bytes, 84),
      .hidden = load_be<uint8_t>(bytes, kHiddenAt),
  };
}

ExaminedFooter examine_footer(ByteSpan bytes) {
  assert(bytes.size() == kFooterBytes || bytes.size() == kShortFooterBytes);
  using State = ExaminedFooter::State;
  const Footer footer = load_footer(bytes);
  const auto damaged = [&](std::string defect) {
    return ExaminedFooter{.state = State::kDamaged, .footer = footer, .defect = std::move(defect)};
  };
  if (cookie_of(bytes) == kDisabledCookie) {
    return {.state = State::kDisabled,
            .footer = footer,
            .defect =
                "has the cookie \"v_poison\", by which vhd-util disables an image that it "
                "resizes, and the resize was not finished: vhd-util revert makes it whole"};
  }
  if (cookie_of(bytes) != kFooterCookie) {
    if (!cookie_is_damaged(bytes, footer)) return {};
    return damaged(fmt::format("has the cookie \"{}\" where \"conectix\" must be",
                               printable(cookie_of(bytes))));
  }
  if (!checksum_holds(bytes, footer)) {
    return damaged(fmt::format("has the checksum {:#010x}, but its bytes have {:#010x}",
                               load_be<uint32_t>(bytes, kFooterChecksumAt),
                               checksum_of(bytes, kFooterChecksumAt)));
  }
  const auto version = load_be<uint32_t>(bytes, 12);
  if (version >> 16 != kMajorVersion) {
    return damaged(fmt::format("has file_format_version {:#010x}, not 1.x", version));
  }
  return {.state = State::kWhole, .footer = footer, .defect = ""};
}

uint64_t DynamicHeader::bitmap_bytes() const {
  const uint64_t bits = block_size / kSectorBytes;
  return div_round_up(div_round_up(bits, 8), kSectorBytes) * kSectorBytes;
}

std::optional<DynamicHeader> parse_dynamic_header(ByteSpan bytes, Defects& defects) {
  assert(bytes.size() == kDynamicHeaderBytes);
  if (cookie_of(bytes) != kHeaderCookie) {
    defects.add("header-cookie-wrong",
                fail(ErrorKind::kMalformed,
                     "the dynamic disk header has the cookie \"{}\" where \"cxsparse\" must be",
                     printable(cookie_of(bytes))));
    return std::nullopt;
  }
  const auto stored = load_be<uint32_t>(bytes, kHeaderChecksumAt);
  const uint32_t computed = checksum_of(bytes, kHeaderChecksumAt);
  if (stored != computed) {
    defects.add(kHeaderChecksumWrong,
                fail(ErrorKind::kMalformed,
                     "the dynamic disk header has the checksum {:#010x}, but its bytes have "
                     "{:#010x}: it is damaged",
                     stored, computed));
  }
  const auto version = load_be<uint32_t>(bytes, 24);
  if (version >> 16 != kMajorVersion) {
    defects.add("header-version-unsupported",
                fail(ErrorKind::kUnsupported, "header_version {:#010x} is not 1.x", version));
  }
  const DynamicHeader header = load_dynamic_header(bytes);
  if (!is_aligned(header.table_offset, kSectorBytes)) {
    defects.add("table-misaligned",
                fail(ErrorKind::kMalformed, "table_offset {} is not a multiple of {}",
                     header.table_offset, kSectorBytes));
  }
  if (!std::has_single_bit(header.block_size) || header.block_size < kMinBlockBytes ||
      header.block_size > kMaxBlockBytes) {
    defects.add("block-size-wrong",
                fail(ErrorKind::kMalformed, "block_size {} is not a power of two from {} to {}",
                     header.block_size, kMinBlockBytes, kMaxBlockBytes));
  }
  return header;
}

std::optional<BatmapHeader> parse_batmap_header(ByteSpan bytes) {
  assert(bytes.size() == kBatmapHeaderBytes);
  if (cookie_of(bytes) != kBatmapCookie) return std::nullopt;
  return BatmapHeader{
      .batmap_offset = load_be<uint64_t>(bytes, 8),
      .batmap_bytes = uint64_t{load_be<uint32_t>(bytes, 16)} * kSectorBytes,
      .batmap_version = load_be<uint32_t>(bytes, 20),
      .checksum = load_be<uint32_t>(bytes, 24),
      .is_encrypted = bytes[kKeyhashCookieAt] != std::byte{0},
  };
}

uint64_t proved_batmap_bytes(const BatmapHeader& header, ByteSpan batmap, uint64_t current_size) {
  if (header.batmap_version > kBatmapVersion12) return 0;
  const auto is_proved = [&](ByteSpan bytes) {
    uint32_t sum = sum_of(bytes);
    if (header.checksum == ~sum) return true;
    if (header.batmap_version != kBatmapVersion11) return false;
    for (const std::byte byte : bytes) sum -= (byte & std::byte{0x80}) != std::byte{0} ? 256u : 0u;
    return header.checksum == ~sum;
  };
  if (is_proved(batmap)) return batmap.size();
  // A bit for each 2 MiB, rounded down to bytes and then up to sectors.
  const uint64_t sectors = div_round_up(current_size / (uint64_t{8} * (2 << 20)), kSectorBytes);
  const uint64_t summed = std::max<uint64_t>(sectors, 1) * kSectorBytes;
  if (summed >= batmap.size()) return 0;
  return is_proved(batmap.first(static_cast<size_t>(summed))) ? summed : 0;
}

}  // namespace underlay::vhd
