// 128-bit identities (GUID, UUID), as images of Windows and VirtualBox have them (RFC 4122).
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "io/bytes.h"

namespace underlay {

// In the byte order of the file.
using Guid = std::array<std::byte, 16>;

// How its first three fields (of 4, 2 and 2 bytes) lie in the file.
enum class GuidOrder : uint8_t { kLittleEndian, kBigEndian };

// REQUIRES: offset + 16 <= bytes.size().
Guid guid_at(ByteSpan bytes, size_t offset);
inline bool is_null(const Guid& guid) { return guid == Guid{}; }

// 8-4-4-4-12 hexadecimal digits, lower case.
std::string to_text(const Guid& guid, GuidOrder order);
// What to_text() makes, in any case, with or without braces. nullopt: it is none.
std::optional<Guid> parse_guid(std::string_view text, GuidOrder order);

}  // namespace underlay
