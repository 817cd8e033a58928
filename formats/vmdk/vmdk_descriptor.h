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

#include "formats/defect.h"

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
  std::string type{};         // as written: VMFS, say
  uint64_t sectors = 0;       // > 0
  VmdkFileName file;          // "" for kZero
  uint64_t offset = 0;        // kFlat: sectors from the start of the file
  bool is_understood = true;  // else see describe_vmdk_descriptor()

  // Is a file to be opened for it?
  bool has_file() const {
    return is_understood && access != Access::kNoAccess && kind != Kind::kZero;
  }
};

// Of the disk database, change tracking, and other things that do not move data.
struct VmdkDescriptorEntry {
  size_t line = 0;  // from 1
  std::string key;
  std::string value;  // without its quotes
};

struct VmdkDescriptor {
  std::string create_type;
  std::optional<uint32_t> version;
  std::string encoding;  // "" when not stated
  std::optional<uint32_t> cid;
  std::optional<uint32_t> parent_cid;  // nullopt: no parent
  VmdkFileName parent_file_name_hint;  // not empty when there is a parent
  std::vector<VmdkExtentLine> extents;
  std::vector<VmdkDescriptorEntry> others;  // all other lines
};

inline constexpr size_t kVmdkMaxExtents = 4096;
inline constexpr uint32_t kVmdkNoParent = 0xffffffff;

// Every line is understood or the descriptor is refused, naming the line: an extent that is
// skipped would shorten the disk. The sum of all sectors, and each extent's offset plus its
// sectors, is at most kVmdkMaxSectors. NUL bytes may fill up the end. REQUIRES: text.size() was
// checked against a limit.
Result<VmdkDescriptor> parse_vmdk_descriptor(std::string_view text);

inline constexpr size_t kVmdkMaxProblems = 100;  // a text may have one in each of 500,000 lines

// For people who look into an image that is not served: goes on behind everything that
// parse_vmdk_descriptor() refuses, and adds the first kVmdkMaxProblems of it to `problems`. Fields
// that were not understood are left as they are by default; of extents, sectors, too.
VmdkDescriptor describe_vmdk_descriptor(std::string_view text, std::vector<Defect>& problems);

// What the start of a file says about being a descriptor.
enum class VmdkDescriptorSigns : uint8_t {
  kNone,
  kLines,   // lines of a descriptor, but not its first
  kHeader,  // "# Disk DescriptorFile" in the comments that it begins with
};
VmdkDescriptorSigns vmdk_descriptor_signs(std::string_view head);

}  // namespace underlay
