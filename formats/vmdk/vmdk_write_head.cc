#include "formats/vmdk/vmdk_write_head.h"

#include <algorithm>
#include <cassert>

#include "formats/vmdk/vmdk_descriptor.h"
#include "io/store_le.h"

namespace underlay {
namespace {

// Bits of flags.
constexpr uint32_t kLineEndsValid = 1 << 0;
constexpr uint32_t kRedundantDirectory = 1 << 1;
constexpr uint32_t kCompressedGrains = 1 << 16;
constexpr uint32_t kMarkers = 1 << 17;
constexpr uint16_t kDeflate = 1;

}  // namespace

std::array<std::byte, kVmdkSectorBytes> vmdk_header_bytes(uint64_t disk_size,
                                                          const VmdkPlaces& places,
                                                          bool stream_optimized) {
  std::array<std::byte, kVmdkSectorBytes> bytes{};
  std::ranges::copy(as_bytes("KDMV"), bytes.begin());
  store_le<uint32_t>(bytes, 4, stream_optimized ? 3 : 1);
  store_le<uint32_t>(
      bytes, 8,
      kLineEndsValid | (stream_optimized ? kCompressedGrains | kMarkers : kRedundantDirectory));
  store_le<uint64_t>(bytes, 12, vmdk_sectors(disk_size));
  store_le<uint64_t>(bytes, 20, kVmdkWrittenGrainSectors);
  store_le<uint64_t>(bytes, 28, kVmdkDescriptorSector);
  store_le<uint64_t>(bytes, 36, kVmdkDescriptorSectors);
  store_le<uint32_t>(bytes, 44, kVmdkGtesPerGt);
  store_le<uint64_t>(bytes, 48, places.redundant_directory);
  store_le<uint64_t>(bytes, 56, places.directory);
  store_le<uint64_t>(bytes, 64, places.overhead);
  std::ranges::copy(as_bytes(kVmdkLineEndBytes), bytes.begin() + kVmdkLineEndOffset);
  store_le<uint16_t>(bytes, 77, stream_optimized ? kDeflate : 0);
  return bytes;
}

std::vector<std::byte> vmdk_descriptor_bytes(uint64_t disk_size, const VmdkToWrite& image,
                                             uint32_t cid) {
  // VMware's geometry: IDE disks have 16 heads, SCSI disks 255.
  const uint64_t heads = image.adapter_type == "ide" ? 16 : 255;
  constexpr uint64_t kSectorsPerTrack = 63;
  const uint64_t sectors = vmdk_sectors(disk_size);
  const std::string text = fmt::format(
      "# Disk DescriptorFile\n"
      "version=1\n"
      "encoding=\"UTF-8\"\n"
      "CID={:08x}\n"
      "parentCID={:08x}\n"
      "createType=\"{}\"\n"
      "\n"
      "# Extent description\n"
      "RW {} SPARSE \"{}\"\n"
      "\n"
      "# The Disk Data Base\n"
      "#DDB\n"
      "\n"
      "ddb.virtualHWVersion = \"{}\"\n"
      "ddb.geometry.cylinders = \"{}\"\n"
      "ddb.geometry.heads = \"{}\"\n"
      "ddb.geometry.sectors = \"{}\"\n"
      "ddb.adapterType = \"{}\"\n",
      cid, kVmdkNoParent, image.stream_optimized ? "streamOptimized" : "monolithicSparse", sectors,
      image.file_name, image.hardware_version, sectors / (heads * kSectorsPerTrack), heads,
      kSectorsPerTrack, image.adapter_type);
  std::vector<std::byte> bytes(kVmdkDescriptorSectors * kVmdkSectorBytes);
  assert(text.size() < bytes.size());
  std::ranges::copy(as_bytes(text), bytes.begin());
  return bytes;
}

uint32_t vmdk_cid(const std::array<std::byte, 16>& content) {
  const auto cid = load_be<uint32_t>(content, 0);
  return cid == kVmdkNoParent ? 0 : cid;
}

}  // namespace underlay
