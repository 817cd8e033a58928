// How a differencing VHD names its parent: parent locators ("Parent Locator Entries" of the
// specification) and the parent's Unicode name, reduced to names that can exist here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/utf16.h"
#include "formats/vhd/vhd_layout.h"
#include "io/source.h"

namespace underlay::vhd {

// Of an image's name in the header, when it has no byte order mark.
inline ByteOrder unmarked_order(const Footer& footer) {
  return footer.is_by_tapdisk01() ? ByteOrder::kLittle : ByteOrder::kBig;
}

// The name in the dynamic disk header, "" when it has none or none that is text. Without a byte
// order mark, its order is `unmarked`: big-endian, but the machine's in images of tapdisk 0.1.
std::string parent_unicode_name(const DynamicHeader& header, ByteOrder unmarked);

// The names that a "file:" URL can mean, without and with its %XX decoded: writers differ.
std::vector<std::string> names_of_file_url(std::string_view url);

// A locator with what it says.
struct ReadLocator {
  ParentLocator locator;
  std::string defect;  // why it does not count, "" when it does
  std::string text;    // as written, in UTF-8; "" when its data is no text, or lies nowhere
};

// The locators of a header that are used. Fails when one cannot be read. Reads at most
// 8 * kMaxLocatorBytes, all of them before `data_end`. May block.
Result<std::vector<ReadLocator>> read_locators(const DynamicHeader& header, const Source& source,
                                               uint64_t data_end);

// The names that a locator without a defect means; none when it is not a path.
std::vector<std::string> names_of_locator(const ReadLocator& locator);

// All names to be tried, in this order and each once: relative locators (W2ru, Wi2r), absolute ones
// (W2ku, Wi2k), file URLs (MacX), the Unicode name. None when the image states none. A locator that
// cannot be used (the alias of a "Mac ", an unknown code, data that lies nowhere) is skipped with a
// warning: the parent's unique id decides whether another name led to the right file. `unmarked`:
// as for parent_unicode_name().
std::vector<std::string> parent_names(const DynamicHeader& header,
                                      const std::vector<ReadLocator>& locators, ByteOrder unmarked,
                                      std::vector<std::string>& warnings);

inline constexpr std::string_view kRelativeLocator = "W2ru";
inline constexpr std::string_view kFileUrlLocator = "MacX";
inline constexpr uint32_t kMaxLocatorBytes = 8192;  // twice PATH_MAX, in UTF-16

}  // namespace underlay::vhd
