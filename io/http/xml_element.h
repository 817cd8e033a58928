// Texts in the small documents that S3 stores answer.
#pragma once

#include <string>
#include <string_view>

namespace underlay {

// The text of the first element <NAME> without attributes, its entities resolved; "" when there is
// none, when it has elements of its own, or more than `limit` bytes.
std::string element_of(std::string_view document, std::string_view name, size_t limit);

// `text` as an element's.
std::string xml_escaped(std::string_view text);

}  // namespace underlay
