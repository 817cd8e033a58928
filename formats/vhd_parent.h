// How a differencing VHD names its parent: parent locators ("Parent Locator Entries" of the
// specification) and the parent's Unicode name, reduced to names that can exist here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/vhd_layout.h"
#include "io/source.h"

namespace underlay::vhd {

// The name in the dynamic disk header, "" when it has none or none that is text.
std::string parent_unicode_name(const DynamicHeader& header);

// The names that a "file:" URL can mean, with and without its %XX decoded: writers differ.
std::vector<std::string> names_of_file_url(std::string_view url);

// All names to be tried, in this order and each once: relative locators (W2ru), absolute ones
// (W2ku), file URLs (MacX), the Unicode name. A locator that cannot be used is skipped with a
// warning: the parent's unique id decides whether another name led to the right file. Fails when no
// name is left, or when a locator cannot be read. Reads at most 8 * kMaxLocatorBytes, all of them
// before `data_end`. May block.
Result<std::vector<std::string>> parent_names(const DynamicHeader& header, const Source& source,
                                              uint64_t data_end,
                                              std::vector<std::string>& warnings);

inline constexpr uint32_t kMaxLocatorBytes = 8192;  // twice PATH_MAX, in UTF-16

}  // namespace underlay::vhd
