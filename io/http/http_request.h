// What all requests to servers have in common: settings of libcurl's, fields, signatures, and when
// it is worth to try again.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "io/error.h"
#include "io/http/curl_handle.h"
#include "io/http/http_limits.h"
#include "io/http/http_target.h"

namespace underlay {

// SHA-256 in hexadecimal, of the body of a request that has none.
inline constexpr std::string_view kEmptyPayloadHash =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

// Settings of a handle; the first that libcurl does not take is told in the end.
class CurlSettings {
 public:
  explicit CurlSettings(CURL* easy) : easy_(easy) {}

  template <class Value>
  void set(CURLoption option, Value value) {
    const CURLcode result = curl_options().set(easy_, option, value);
    if (failed_ == CURLE_OK) failed_ = result;
  }
  Result<void> finish() const;

 private:
  CURL* easy_;
  CURLcode failed_ = CURLE_OK;
};

// Whom a request goes to, and for how long at most. The handle keeps pointers: `reason`, of
// CURL_ERROR_SIZE bytes, outlives the request.
void set_common(CurlSettings& settings, const HttpTarget& target, const std::string& url,
                const HttpLimits& limits, std::chrono::milliseconds left, char* reason);

// Has the request signed when it goes to a store for which there are keys, and gives it `lines` as
// fields. What is returned must live as long as the request. `payload_hash`: as above, of the body.
// May block: keys are asked for at every try, because they may have been renewed.
Result<CurlList> set_fields(CURL* easy, const HttpTarget& target, std::vector<std::string> lines,
                            std::string_view payload_hash);

// A field of the reply, of the last one when there were redirects; "" when it has none.
std::string reply_field(CURL* easy, const char* name);

// A failure of the network that may be over soon.
bool is_transient(CURLcode code);

// How long to wait after try number `tries`: longer each time, partly by chance, and as long as the
// server states (Retry-After).
std::chrono::milliseconds retry_delay(CURL* easy, const HttpLimits& limits, unsigned tries);

}  // namespace underlay
