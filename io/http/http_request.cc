#include "io/http/http_request.h"

#include <algorithm>
#include <random>

namespace underlay {
namespace {

using std::chrono::milliseconds;

// From half of the delay to all of it, so that many clients do not come back at once.
milliseconds with_jitter(milliseconds delay) {
  thread_local std::minstd_rand random{std::random_device{}()};
  std::uniform_int_distribution<milliseconds::rep> some(delay.count() / 2, delay.count());
  return milliseconds(some(random));
}

}  // namespace

Result<void> CurlSettings::finish() const {
  if (failed_ == CURLE_OK) return {};
  return fail(ErrorKind::kUnsupported, "libcurl does not take a setting: {}",
              curl_easy_strerror(failed_));
}

void set_common(CurlSettings& settings, const HttpTarget& target, const std::string& url,
                const HttpLimits& limits, milliseconds left, char* reason) {
  settings.set(CURLOPT_URL, url.c_str());
  settings.set(CURLOPT_PROTOCOLS_STR, "http,https");
  settings.set(CURLOPT_NOSIGNAL, 1L);
  settings.set(CURLOPT_USERAGENT, "underlay");
  settings.set(CURLOPT_ERRORBUFFER, reason);
  settings.set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(limits.connect.count()));
  settings.set(CURLOPT_TIMEOUT_MS, static_cast<long>(std::max<milliseconds::rep>(1, left.count())));
  if (!target.ca_file.empty()) settings.set(CURLOPT_CAINFO, target.ca_file.c_str());
  // A key is no path: "." and ".." in it are letters.
  if (target.is_store()) settings.set(CURLOPT_PATH_AS_IS, 1L);
}

Result<CurlList> set_fields(CURL* easy, const HttpTarget& target, std::vector<std::string> lines,
                            std::string_view payload_hash) {
  const auto set = curl_options().set;
  if (target.is_store()) {
    if (const auto keys = TRY(target.credentials->get())) {
      if (set(easy, CURLOPT_AWS_SIGV4, target.signing.c_str()) != CURLE_OK ||
          set(easy, CURLOPT_USERNAME, keys->key_id.c_str()) != CURLE_OK ||
          set(easy, CURLOPT_PASSWORD, keys->secret.c_str()) != CURLE_OK) {
        return fail(ErrorKind::kUnsupported, "libcurl signs no requests for S3 stores");
      }
      lines.push_back(fmt::format("x-amz-content-sha256: {}", payload_hash));
      if (!keys->token.empty()) lines.push_back("x-amz-security-token: " + keys->token);
    }
  }
  CurlList list;
  for (const std::string& line : lines) {
    curl_slist* const longer = curl_slist_append(list.get(), line.c_str());
    if (longer == nullptr) return fail(ErrorKind::kLimit, "no memory left");
    (void)list.release();
    list.reset(longer);
  }
  if (set(easy, CURLOPT_HTTPHEADER, list.get()) != CURLE_OK) {
    return fail(ErrorKind::kUnsupported, "libcurl takes no fields");
  }
  return list;
}

std::string reply_field(CURL* easy, const char* name) {
  curl_header* found = nullptr;
  if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &found) != CURLHE_OK) return {};
  return found->value;
}

bool is_transient(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
      return true;
    default:
      return false;
  }
}

milliseconds retry_delay(CURL* easy, const HttpLimits& limits, unsigned tries) {
  milliseconds delay = limits.first_delay;
  for (unsigned i = 1; i < tries && delay < limits.longest_delay; ++i) delay *= 2;
  delay = with_jitter(std::min(delay, limits.longest_delay));
  curl_off_t stated = 0;  // seconds
  curl_options().get(easy, CURLINFO_RETRY_AFTER, &stated);
  constexpr curl_off_t kMostStated = 3600;
  return std::max<milliseconds>(delay, std::chrono::seconds(std::min(stated, kMostStated)));
}

}  // namespace underlay
