#include "formats/vhd_layout.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

namespace underlay::vhd {
namespace {

constexpr std::string_view kFooterCookie = "conectix";
constexpr std::string_view kHeaderCookie = "cxsparse";
constexpr std::string_view kBatmapCookie = "tdbatmap";
constexpr size_t kCookieBytes = 8;
constexpr uint32_t kMajorVersion = 1;  // the upper half of the version fields
constexpr size_t kFooterChecksumAt = 64;
constexpr size_t kHeaderChecksumAt = 36;
constexpr size_t kHiddenAt = 85;
constexpr size_t kLocatorsAt = 576;
constexpr size_t kLocatorBytes = 24;
constexpr uint32_t kBatmapVersion11 = 0x00010001;  // summed with the compiler's signed char

std::string_view cookie_of(ByteSpan bytes) { return as_text(bytes.first(kCookieBytes)); }

uint32_t sum_of(ByteSpan bytes) {
  uint32_t sum = 0;
  for (const std::byte byte : bytes) sum += std::to_integer<uint32_t>(byte);
  return sum;
}

// The checksum that a structure whose own lies at `at` should have.
uint32_t checksum_of(ByteSpan bytes, size_t at) {
  return ~(sum_of(bytes) - sum_of(bytes.subspan(at, 4)));
}

template <size_t N>
std::array<char, N> characters_at(ByteSpan bytes, size_t offset) {
  std::array<char, N> characters;
  std::memcpy(characters.data(), bytes.data() + offset, N);
  return characters;
}

UniqueId id_at(ByteSpan bytes, size_t offset) {
  UniqueId id;
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), id.size(), id.begin());
  return id;
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
      .unique_id = id_at(bytes, 68),
  };
}

// What 512 (or 511) bytes are, as a footer.
struct Examined {
  enum class State : uint8_t { kNone, kDamaged, kWhole };
  State state = State::kNone;
  Footer footer;       // kDamaged: as the bytes have it
  std::string defect;  // kDamaged
};

// tapdisk set its "hidden" byte without a new checksum.
bool checksum_holds(ByteSpan bytes, const Footer& footer) {
  const auto stored = load_be<uint32_t>(bytes, kFooterChecksumAt);
  const uint32_t computed = checksum_of(bytes, kFooterChecksumAt);
  if (stored == computed) return true;
  return footer.creator().starts_with("tap") &&
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

// REQUIRES: bytes.size() is kFooterBytes or kShortFooterBytes.
Examined examine(ByteSpan bytes) {
  Examined examined;
  examined.footer = load_footer(bytes);
  if (cookie_of(bytes) != kFooterCookie) {
    if (!cookie_is_damaged(bytes, examined.footer)) return examined;
    examined.state = Examined::State::kDamaged;
    examined.defect = fmt::format("has the cookie \"{}\" where \"conectix\" must be",
                                  printable(cookie_of(bytes)));
    return examined;
  }
  examined.state = Examined::State::kDamaged;
  const auto version = load_be<uint32_t>(bytes, 12);
  if (!checksum_holds(bytes, examined.footer)) {
    examined.defect = fmt::format("has the checksum {:#010x}, but its bytes have {:#010x}",
                                  load_be<uint32_t>(bytes, kFooterChecksumAt),
                                  checksum_of(bytes, kFooterChecksumAt));
  } else if (version >> 16 != kMajorVersion) {
    examined.defect = fmt::format("has file_format_version {:#010x}, not 1.x", version);
  } else {
    examined.state = Examined::State::kWhole;
  }
  return examined;
}

struct Trailing {
  Examined footer;
  size_t bytes = 0;  // that it takes at the end of the file; 0 when there is none
};

Trailing examine_tail(ByteSpan tail) {
  Trailing best;
  for (const size_t bytes : {kFooterBytes, kShortFooterBytes}) {
    if (tail.size() < bytes) continue;
    Examined examined = examine(tail.last(bytes));
    if (examined.state > best.footer.state) {
      best = Trailing{.footer = std::move(examined), .bytes = bytes};
    }
  }
  return best;
}

// What the copy at 0 of a sparse image says against its trailing footer, "" when nothing.
std::string copy_disagreement(const Examined& copy, const Footer& trailing) {
  switch (copy.state) {
    case Examined::State::kNone:
      return "the copy of the footer at byte 0 is missing; the trailing footer is used";
    case Examined::State::kDamaged:
      return fmt::format("the copy of the footer at byte 0 {}; the trailing footer is used",
                         copy.defect);
    case Examined::State::kWhole:
      break;
  }
  if (copy.footer == trailing) return "";
  return "the copy of the footer at byte 0 differs from the trailing footer, which is used";
}

// No whole trailing footer: the copy at 0 of a sparse image may stand in for it.
Result<FoundFooter> find_copy(const Examined& copy, const Trailing& trailing, uint64_t size) {
  const bool trailing_damaged = trailing.footer.state == Examined::State::kDamaged;
  const std::string trailing_defect =
      trailing_damaged ? trailing.footer.defect : "is missing (is the file truncated?)";
  if (copy.state == Examined::State::kNone && !trailing_damaged) {
    return fail(ErrorKind::kNotFound, "no VHD footer (\"conectix\") at the end of the file");
  }
  if (copy.state != Examined::State::kWhole) {
    return fail(ErrorKind::kMalformed, "the trailing VHD footer {}, and the copy at byte 0 {}",
                trailing_defect,
                copy.state == Examined::State::kNone ? "does not exist" : copy.defect);
  }
  // In a fixed disk, the bytes at 0 are the guest's.
  if (copy.footer.disk_type == kTypeFixed ||
      (trailing_damaged && trailing.footer.footer.disk_type == kTypeFixed)) {
    return fail(ErrorKind::kMalformed,
                "the trailing VHD footer {}; a fixed disk has no copy of it, so the one at byte 0 "
                "may be the guest's",
                trailing_defect);
  }
  FoundFooter found{.footer = copy.footer, .data_end = size - trailing.bytes, .warnings = {}};
  found.warnings.push_back(
      fmt::format("the trailing footer {}; the copy at byte 0 is used", trailing_defect));
  return found;
}

}  // namespace

std::string to_string(const UniqueId& id) {
  std::string text;
  for (size_t i = 0; i < id.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", std::to_integer<unsigned>(id[i]));
  }
  return text;
}

bool is_null(const UniqueId& id) { return id == UniqueId{}; }

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

Result<FoundFooter> find_footer(ByteSpan head, ByteSpan tail, uint64_t size) {
  const Trailing trailing = examine_tail(tail);
  Examined copy;
  // In a smaller file, the first sector is (a part of) the trailing footer.
  if (size >= kFooterBytes + kShortFooterBytes && head.size() >= kFooterBytes) {
    copy = examine(head.first(kFooterBytes));
  }
  if (trailing.footer.state != Examined::State::kWhole) return find_copy(copy, trailing, size);
  FoundFooter found{
      .footer = trailing.footer.footer, .data_end = size - trailing.bytes, .warnings = {}};
  if (found.footer.is_sparse()) {
    std::string disagreement = copy_disagreement(copy, found.footer);
    if (!disagreement.empty()) found.warnings.push_back(std::move(disagreement));
  }
  return found;
}

uint64_t DynamicHeader::bitmap_bytes() const {
  const uint64_t bits = block_size / kSectorBytes;
  return div_round_up(div_round_up(bits, 8), kSectorBytes) * kSectorBytes;
}

Result<DynamicHeader> parse_dynamic_header(ByteSpan bytes) {
  assert(bytes.size() == kDynamicHeaderBytes);
  if (cookie_of(bytes) != kHeaderCookie) {
    return fail(ErrorKind::kMalformed,
                "the dynamic disk header has the cookie \"{}\" where \"cxsparse\" must be",
                printable(cookie_of(bytes)));
  }
  const auto stored = load_be<uint32_t>(bytes, kHeaderChecksumAt);
  const uint32_t computed = checksum_of(bytes, kHeaderChecksumAt);
  if (stored != computed) {
    return fail(ErrorKind::kMalformed,
                "the dynamic disk header has the checksum {:#010x}, but its bytes have {:#010x}: "
                "it is damaged",
                stored, computed);
  }
  const auto version = load_be<uint32_t>(bytes, 24);
  if (version >> 16 != kMajorVersion) {
    return fail(ErrorKind::kUnsupported, "header_version {:#010x} is not 1.x", version);
  }
  DynamicHeader header;
  header.table_offset = load_be<uint64_t>(bytes, 16);
  header.max_table_entries = load_be<uint32_t>(bytes, 28);
  header.block_size = load_be<uint32_t>(bytes, 32);
  header.parent_unique_id = id_at(bytes, 40);
  std::copy_n(bytes.begin() + 64, kParentNameBytes, header.parent_unicode_name.begin());
  for (size_t i = 0; i < kParentLocators; ++i) {
    const ByteSpan locator = bytes.subspan(kLocatorsAt + i * kLocatorBytes, kLocatorBytes);
    header.locators[i] = ParentLocator{.platform_code = characters_at<4>(locator, 0),
                                       .data_length = load_be<uint32_t>(locator, 8),
                                       .data_offset = load_be<uint64_t>(locator, 16)};
  }
  if (!is_aligned(header.table_offset, kSectorBytes)) {
    return fail(ErrorKind::kMalformed, "table_offset {} is not a multiple of {}",
                header.table_offset, kSectorBytes);
  }
  if (!std::has_single_bit(header.block_size) || header.block_size < kMinBlockBytes ||
      header.block_size > kMaxBlockBytes) {
    return fail(ErrorKind::kMalformed, "block_size {} is not a power of two from {} to {}",
                header.block_size, kMinBlockBytes, kMaxBlockBytes);
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
  };
}

bool batmap_checksum_holds(const BatmapHeader& header, ByteSpan bytes) {
  const uint32_t sum = sum_of(bytes);
  if (header.checksum == ~sum) return true;
  if (header.batmap_version != kBatmapVersion11) return false;
  const auto negative =
      static_cast<uint32_t>(std::count_if(bytes.begin(), bytes.end(), [](std::byte byte) {
        return (byte & std::byte{0x80}) != std::byte{0};
      }));
  return header.checksum == ~(sum - 256 * negative);
}

}  // namespace underlay::vhd
