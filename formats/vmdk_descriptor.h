// The VMDK descriptor: text that says of which extents a disk is made, and who its parent is.
// VMware "Virtual Disk Format 5.0", section "The Descriptor File".
//
//   # Disk DescriptorFile
//   version=1
//   encoding="UTF-8"                        of all names; windows-1252, Shift_JIS, GBK, ...
//   CID=fffffffe
//   parentCID=ffffffff
//   createType="twoGbMaxExtentSparse"
//   RW 4192256 SPARSE "disk-s001.vmdk"      ACCESS SECTORS TYPE ["NAME" [OFFSET]]
//   RW 2048 FLAT "disk-f002.vmdk" 0
//   ddb.adapterType = "lsilogic"
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/error.h"

namespace underlay {

// The name of a file, text of the image: not trusted.
struct VmdkFileName {
  std::string name;        // in UTF-8, as names are here
  std::string as_written;  // its bytes, when they are others; else ""
};

struct VmdkExtentLine {
  enum class Access : uint8_t { kReadWrite, kReadOnly, kNoAccess };
  enum class Kind : uint8_t {
    kFlat,    // FLAT, VMFS: plain bytes in a file
    kSparse,  // SPARSE, VMFSSPARSE, SESPARSE: a file with a sparse header, which says of what kind
    kZero,    // ZERO: no file
  };

  size_t line = 0;  // in the descriptor, from 1
  Access access = Access::kReadWrite;
  Kind kind = Kind::kFlat;
  uint64_t sectors = 0;  // > 0
  VmdkFileName file;     // "" for kZero
  uint64_t offset = 0;   // kFlat: sectors from the start of the file
};

struct VmdkDescriptor {
  std::optional<uint32_t> cid;
  std::optional<uint32_t> parent_cid;  // nullopt: no parent
  VmdkFileName parent_file_name_hint;  // not empty when there is a parent
  std::vector<VmdkExtentLine> extents;
};

inline constexpr size_t kVmdkMaxExtents = 4096;
inline constexpr uint32_t kVmdkNoParent = 0xffffffff;

// Every line is understood or the descriptor is refused, naming the line: an extent that is
// skipped would shorten the disk. The sum of all sectors, and each extent's offset plus its
// sectors, is at most kVmdkMaxSectors. NUL bytes may fill up the end. REQUIRES: text.size() was
// checked against a limit.
Result<VmdkDescriptor> parse_vmdk_descriptor(std::string_view text);

// What the start of a file says about being a descriptor.
enum class VmdkDescriptorSigns : uint8_t {
  kNone,
  kLines,   // lines of a descriptor, but not its first
  kHeader,  // "# Disk DescriptorFile" in the comments that it begins with
};
VmdkDescriptorSigns vmdk_descriptor_signs(std::string_view head);

}  // namespace underlay
