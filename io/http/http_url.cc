#include "io/http/http_url.h"

#include <charconv>

namespace underlay {

Result<CurlUrl> parse_http_url(const std::string& text, const std::string& shown) {
  TRY(load_curl());
  CurlUrl url(curl_url());
  if (!url) return fail(ErrorKind::kLimit, "no memory left");
  const CURLUcode parsed = curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0);
  if (parsed != CURLUE_OK) {
    return in_file(fail(ErrorKind::kUsage, "is no URL: {}", curl_url_strerror(parsed)), shown);
  }
  const std::string scheme = url_part(url.get(), CURLUPART_SCHEME);
  if (scheme != "http" && scheme != "https") {
    return in_file(
        fail(ErrorKind::kUsage, "is no URL of http or https, but of {}", printable(scheme, 20)),
        shown);
  }
  if (!url_part(url.get(), CURLUPART_USER).empty() ||
      !url_part(url.get(), CURLUPART_PASSWORD).empty()) {
    return in_file(fail(ErrorKind::kUsage,
                        "has a user or password, which every user of this machine could read in "
                        "the list of processes; a presigned URL, or s3://, needs none"),
                   shown);
  }
  return url;
}

std::string url_part(CURLU* url, CURLUPart part, unsigned flags) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, flags) != CURLUE_OK) return {};
  const CurlText owned(text);
  return text;
}

uint16_t url_port(CURLU* url) {
  const std::string text = url_part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT);
  uint16_t port = 0;
  std::from_chars(text.data(), text.data() + text.size(), port);
  return port;
}

}  // namespace underlay
