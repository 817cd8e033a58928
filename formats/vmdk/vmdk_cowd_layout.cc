#include "formats/vmdk/vmdk_cowd_layout.h"

#include <bit>

#include "formats/vmdk/vmdk_layout.h"

namespace underlay {
namespace {

constexpr uint32_t kVersion = 1;
constexpr uint32_t kFlags = 3;

}  // namespace

Result<CowdHeader> parse_cowd_header(ByteSpan bytes) {
  if (bytes.size() < kCowdHeaderBytes) {
    return fail(ErrorKind::kTruncated, "a COWD extent begins with a header of {} bytes; {} exist",
                kCowdHeaderBytes, bytes.size());
  }
  if (vmdk_magic(bytes) != VmdkMagic::kCowd) {
    return fail(ErrorKind::kMalformed, "begins with \"{}\", not with \"COWD\": no COWD extent",
                printable(as_text(bytes.first(4))));
  }
  const auto version = load_le<uint32_t>(bytes, 4);
  const auto flags = load_le<uint32_t>(bytes, 8);
  if (version != kVersion || flags != kFlags) {
    return fail(ErrorKind::kUnsupported,
                "COWD header's version is {} and its flags {:#x}: only {} and {:#x} are served",
                version, flags, kVersion, kFlags);
  }
  const CowdHeader header{.num_sectors = load_le<uint32_t>(bytes, 12),
                          .grain_size = load_le<uint32_t>(bytes, 16),
                          .gd_offset = load_le<uint32_t>(bytes, 20),
                          .num_gd_entries = load_le<uint32_t>(bytes, 24),
                          .free_sector = load_le<uint32_t>(bytes, 28),
                          .unclean_shutdown = load_le<uint32_t>(bytes, 1648) != 0};
  if (header.num_sectors == 0) return fail(ErrorKind::kMalformed, "COWD header's numSectors is 0");
  if (!std::has_single_bit(header.grain_size) || header.grain_size > kVmdkMaxGrainSectors) {
    return fail(ErrorKind::kMalformed,
                "COWD header's grainSize is {} sectors: it must be a power of two up to {}",
                header.grain_size, kVmdkMaxGrainSectors);
  }
  if (header.gd_offset < kCowdHeaderBytes / kVmdkSectorBytes) {
    return fail(ErrorKind::kMalformed, "COWD header's gdOffset is {}, where the header lies",
                header.gd_offset);
  }
  const uint64_t tables = div_round_up(header.num_sectors, header.grain_size * kCowdGtesPerGt);
  if (header.num_gd_entries < tables) {
    return fail(ErrorKind::kMalformed,
                "COWD header's numGDEntries is {}: {} sectors in grains of {} need {}",
                header.num_gd_entries, header.num_sectors, header.grain_size, tables);
  }
  return header;
}

}  // namespace underlay
