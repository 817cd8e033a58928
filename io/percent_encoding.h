// Percent-encoding of parts of a URI (RFC 3986, 2.1).
#pragma once

#include <string>
#include <string_view>

namespace underlay {

// `text` with every %XX decoded; what is no %XX stays as it is.
std::string percent_decoded(std::string_view text);

// `text` with every byte written as %XX but the unreserved characters and those in `keep`.
std::string percent_encoded(std::string_view text, std::string_view keep);

}  // namespace underlay
