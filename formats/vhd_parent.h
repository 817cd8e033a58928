// How a differencing VHD names its parent: parent locators ("Parent Locator Entries" of the
// specification) and the parent's Unicode name, reduced to names that can exist here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/utf16.h"
#include "formats/vhd_layout.h"
#include "io/source.h"

namespace underlay::vhd {

// The name in the dynamic disk header, "" when it has none or none that is text. Without a byte
// order mark, its order is `unmarked`: big-endian, but the machine's in images of tapdisk 0.1.
std::string parent_unicode_name(const DynamicHeader& header, ByteOrder unmarked);

// The names that a "file:" URL can mean, with and without its %XX decoded: writers differ.
std::vector<std::string> names_of_file_url(std::string_view url);

// All names to be tried, in this order and each once: relative locators (W2ru, Wi2r), absolute ones
// (W2ku, Wi2k), file URLs (MacX), the Unicode name. None when the image states none. A locator that
// cannot be used (the alias of a "Mac ", an unknown code, data that lies nowhere) is skipped with a
// warning: the parent's unique id decides whether another name led to the right file. Fails when a
// locator cannot be read. Reads at most 8 * kMaxLocatorBytes, all of them before `data_end`. May
// block. `unmarked`: as for parent_unicode_name().
Result<std::vector<std::string>> parent_names(const DynamicHeader& header, const Source& source,
                                              uint64_t data_end, ByteOrder unmarked,
                                              std::vector<std::string>& warnings);

inline constexpr uint32_t kMaxLocatorBytes = 8192;  // twice PATH_MAX, in UTF-16

}  // namespace underlay::vhd
