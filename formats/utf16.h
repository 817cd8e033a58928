// UTF-16, in which images of Windows hosts have their texts.
#pragma once

#include <optional>
#include <string>

#include "io/bytes.h"

namespace underlay {

enum class ByteOrder : uint8_t { kLittle, kBig };

// The unit number `index`. REQUIRES: (index + 1) * 2 <= bytes.size().
char32_t utf16_unit(ByteSpan bytes, size_t index, ByteOrder order);

// UTF-16 as UTF-8, without the NULs that end it. nullopt for what is no text: an odd number of
// bytes, a surrogate without its other half, a NUL inside.
std::optional<std::string> utf16_to_utf8(ByteSpan bytes, ByteOrder order);

// The text in a field of fixed length, up to its first NUL; "" for what is none.
std::string utf16_field(ByteSpan bytes, ByteOrder order);

}  // namespace underlay
