// The fields of VMDK's headers by the names of their specifications, for people.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "formats/inspection/inspector.h"
#include "io/bytes.h"

namespace underlay {

struct VmdkField {
  std::string_view name;
  uint32_t offset = 0;  // from the start of the structure
  uint32_t length = 0;  // bytes: 1, 2, 4 or 8 of a number, of a text any
  bool is_text = false;
  std::string (*meaning)(uint64_t value) = nullptr;
};

std::span<const VmdkField> vmdk_hosted_fields();     // SparseExtentHeader, 512 bytes
std::span<const VmdkField> vmdk_cowd_fields();       // COWDisk_Header, 2048 bytes
std::span<const VmdkField> vmdk_se_sparse_fields();  // its constant header, 512 bytes
std::span<const VmdkField> vmdk_volatile_fields();   // its volatile header, 512 bytes
std::span<const VmdkField> vmdk_marker_fields();     // of metadata, 16 bytes
std::span<const VmdkField> vmdk_grain_fields();      // marker of a compressed grain, 12 bytes

// One structure: `bytes` are those at `offset` in the file, and hold all fields.
Result<void> dump_vmdk_structure(DumpSink& sink, std::string_view name, uint64_t offset,
                                 ByteSpan bytes, std::span<const VmdkField> fields);

}  // namespace underlay
