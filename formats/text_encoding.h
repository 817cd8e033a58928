// Text of images in encodings other than UTF-8.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/utf16.h"
#include "io/error.h"

namespace underlay {

bool is_ascii(std::string_view text);

// `text`, which is in `encoding` (windows-1252, Shift_JIS, GBK, ...; case does not matter), in
// UTF-8. kUnsupported when the encoding is none that is known here, kMalformed when `text` is not
// in it. Thread-safe.
Result<std::string> to_utf8(std::string_view text, std::string_view encoding);

// `text`, in UTF-8, as UTF-16. kMalformed when it is no UTF-8. Thread-safe.
Result<std::vector<std::byte>> utf8_to_utf16(std::string_view text, ByteOrder order);

// Loads what to_utf8() needs of the C library for each encoding, for good: for a process that may
// open no files later. Thread-safe.
void load_text_encodings();

}  // namespace underlay
