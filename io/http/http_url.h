// URLs of web servers, taken apart by libcurl.
#pragma once

#include <string>

#include "io/error.h"
#include "io/http/curl_handle.h"

namespace underlay {

// `text`, an http:// or https:// URL without a user and password. Errors (kUsage) begin with
// `shown`: what the URL comes from, without secrets.
Result<CurlUrl> parse_http_url(const std::string& text, const std::string& shown);

// "" when the URL has no such part.
std::string url_part(CURLU* url, CURLUPart part, unsigned flags = 0);

// The port that connections to it lead to.
uint16_t url_port(CURLU* url);

}  // namespace underlay
