// How a differencing VHDX names its parent: the metadata item Parent Locator ([MS-VHDX] 2.6.2.6).
// Pure: bytes in, names out.
//
//    0 16 LocatorType, B04AEFB7-D19E-4A81-B789-25B8E9445913
//   16  2 reserved
//   18  2 KeyValueCount
//   20 12 for each: u32 KeyOffset, u32 ValueOffset (from the item's start), u16 KeyLength,
//         u16 ValueLength; both are UTF-16LE
//   keys  parent_linkage, parent_linkage2: the parent's DataWriteGuid; two while a merge changes it
//         relative_path, volume_path, absolute_win32_path: where it lies
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "formats/reader.h"
#include "formats/vhdx/vhdx_layout.h"

namespace underlay::vhdx {

// What Reader::identity() says of a VHDX. Parent and child have the same logical sectors (2.6.2.4).
std::string identity_of(const Guid& data_write_guid, uint32_t logical_sector_size);

// What a locator says: by key, which is text, each once; nullopt: a value that is no text.
using LocatorValues = std::map<std::string, std::optional<std::string>>;

// The key-value pairs of a locator of whatever type. Fails when it is damaged.
// REQUIRES: locator.size() >= kLocatorHeaderBytes.
Result<LocatorValues> locator_values(ByteSpan locator);

// The keys of paths, in the order of 2.6.2.6.3.
inline constexpr std::array<std::string_view, 3> kPathKeys = {"relative_path", "volume_path",
                                                              "absolute_win32_path"};

// The parent of a child with sectors of `logical_sector_size`, by the bytes of its locator: names
// in the order of 2.6.2.6.3, each once. A path that is no text is skipped with a warning: the
// linkage decides whether another name led to the right file. Fails when the locator is of another
// type, when it is damaged, or without parent_linkage. REQUIRES: locator.size() >=
// kLocatorHeaderBytes.
Result<ParentLink> parse_parent_locator(ByteSpan locator, uint32_t logical_sector_size,
                                        std::vector<std::string>& warnings);

inline constexpr size_t kLocatorHeaderBytes = 20;
inline constexpr uint16_t kMaxKeyValues = 64;     // five are known
inline constexpr uint16_t kMaxValueBytes = 8192;  // twice PATH_MAX, in UTF-16

}  // namespace underlay::vhdx
