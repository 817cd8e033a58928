// The structures that both kinds of VMDKs that are written begin with, as bytes. Pure.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "formats/vmdk/vmdk_layout.h"
#include "formats/vmdk/vmdk_writer.h"

namespace underlay {

inline constexpr uint64_t kVmdkWrittenGrainSectors = 128;  // 64 KiB, as everybody has it
inline constexpr uint64_t kVmdkWrittenGrainBytes = kVmdkWrittenGrainSectors * kVmdkSectorBytes;
// Of the disk, for which one grain table stands.
inline constexpr uint64_t kVmdkWrittenTableSpan = kVmdkWrittenGrainBytes * kVmdkGtesPerGt;
inline constexpr uint64_t kVmdkGrainTableSectors = kVmdkGtesPerGt * 4 / kVmdkSectorBytes;
inline constexpr uint64_t kVmdkDescriptorSector = 1;
inline constexpr uint64_t kVmdkDescriptorSectors = 20;

// `bytes` in sectors.
constexpr uint64_t vmdk_sectors(uint64_t bytes) { return div_round_up(bytes, kVmdkSectorBytes); }

// Where the directories of a written extent lie, in sectors.
struct VmdkPlaces {
  uint64_t redundant_directory = 0;  // 0: none
  uint64_t directory = kVmdkGdAtEnd;
  uint64_t overhead = 0;
};
std::array<std::byte, kVmdkSectorBytes> vmdk_header_bytes(uint64_t disk_size,
                                                          const VmdkPlaces& places,
                                                          bool stream_optimized);

// The embedded descriptor, filled up to its kVmdkDescriptorSectors.
std::vector<std::byte> vmdk_descriptor_bytes(uint64_t disk_size, const VmdkToWrite& image,
                                             uint32_t cid);

// A content id of a VMDK, from the one of the content (or of as much as is known of it).
uint32_t vmdk_cid(const std::array<std::byte, 16>& content);

}  // namespace underlay
