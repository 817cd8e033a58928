#include "io/http/http_target.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "io/http/aws_files.h"
#include "io/http/curl_handle.h"
#include "io/http/remote_name.h"

namespace underlay {
namespace {

namespace fs = std::filesystem;

struct StoreSettings {
  std::string endpoint;  // without a slash behind it; "" = Amazon's
  std::string region;
  bool bucket_in_path = false;
};

std::string first_of(std::initializer_list<std::string> values) {
  for (const std::string& value : values) {
    if (!value.empty()) return value;
  }
  return {};
}

Result<StoreSettings> store_settings() {
  AwsProfile profile = TRY(read_aws_profile(aws_config_file()));
  StoreSettings settings;
  settings.endpoint = first_of({environment("AWS_ENDPOINT_URL_S3"), environment("AWS_ENDPOINT_URL"),
                                profile["s3.endpoint_url"], profile["endpoint_url"]});
  while (settings.endpoint.ends_with('/')) settings.endpoint.pop_back();
  settings.region = first_of({environment("AWS_REGION"), environment("AWS_DEFAULT_REGION"),
                              profile["region"], "us-east-1"});
  const std::string style =
      first_of({environment("UNDERLAY_S3_ADDRESSING"), profile["s3.addressing_style"], "auto"});
  if (style != "path" && style != "virtual" && style != "auto") {
    return fail(ErrorKind::kUsage,
                "UNDERLAY_S3_ADDRESSING or addressing_style \"{}\": is not one of: path, virtual, "
                "auto",
                printable(style, 80));
  }
  settings.bucket_in_path = style == "path" || (style == "auto" && !settings.endpoint.empty());
  return settings;
}

Failure not_a_url(const std::string& shown, CURLUcode why) {
  return in_file(fail(ErrorKind::kUsage, "is no URL of an image: {}", curl_url_strerror(why)),
                 shown);
}

std::string part_of(CURLU* url, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, flags) != CURLUE_OK) return {};
  const CurlText owned(text);
  return text;
}

Result<CurlUrl> parse_url(const std::string& text, const std::string& shown) {
  TRY(load_curl());
  CurlUrl url(curl_url());
  if (!url) return fail(ErrorKind::kLimit, "no memory left");
  const CURLUcode parsed = curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0);
  if (parsed != CURLUE_OK) return not_a_url(shown, parsed);
  const std::string scheme = part_of(url.get(), CURLUPART_SCHEME);
  if (scheme != "http" && scheme != "https") {
    return in_file(fail(ErrorKind::kUsage, "is no URL of an image: {}: is not http or https",
                        printable(scheme, 20)),
                   shown);
  }
  if (!part_of(url.get(), CURLUPART_USER).empty() ||
      !part_of(url.get(), CURLUPART_PASSWORD).empty()) {
    return in_file(fail(ErrorKind::kUsage,
                        "has a user or password, which every user of this machine could read in "
                        "the list of processes; a presigned URL, or s3://, needs none"),
                   shown);
  }
  return url;
}

// The environment's word first, as of the programs curl and aws.
std::string ca_file(bool of_store) {
  return first_of({of_store ? environment("AWS_CA_BUNDLE") : "", environment("CURL_CA_BUNDLE"),
                   environment("SSL_CERT_FILE")});
}

bool is_bucket_name(std::string_view bucket) {
  return !bucket.empty() && bucket.size() <= 255 && percent_encoded(bucket) == bucket &&
         bucket.find('~') == std::string_view::npos && bucket != "." && bucket != "..";
}

Result<HttpTarget> store_target(const std::string& name) {
  const std::string place = name.substr(std::string_view("s3://").size());
  const size_t slash = place.find('/');
  const std::string bucket = place.substr(0, slash);
  if (slash == std::string::npos || slash + 1 == place.size() || !is_bucket_name(bucket)) {
    return in_file(fail(ErrorKind::kUsage, "is no s3://BUCKET/KEY"), name);
  }
  const std::string key = percent_encoded(place.substr(slash + 1));
  StoreSettings settings = TRY(store_settings());
  if (settings.endpoint.empty()) {
    settings.endpoint = fmt::format("https://s3.{}.amazonaws.com", settings.region);
  }
  const CurlUrl endpoint = TRY(parse_url(settings.endpoint, settings.endpoint));
  HttpTarget target;
  if (settings.bucket_in_path) {
    target.url = fmt::format("{}/{}/{}", settings.endpoint, bucket, key);
  } else {
    std::string with_bucket = settings.endpoint;
    with_bucket.insert(with_bucket.find("://") + 3, bucket + ".");
    target.url = with_bucket + "/" + key;
  }
  target.shown = name;
  target.ca_file = ca_file(true);
  target.signing = fmt::format("aws:amz:{}:s3", settings.region);
  target.credentials = TRY(AwsCredentialSource::from_environment());
  return target;
}

// Ports of the proxies that libcurl would take.
void add_proxies(std::vector<uint16_t>& ports) {
  for (const char* name : {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"}) {
    const std::string proxy = environment(name);
    if (proxy.empty()) continue;
    const CurlUrl url(curl_url());
    if (curl_url_set(url.get(), CURLUPART_URL, proxy.c_str(), CURLU_GUESS_SCHEME) != CURLUE_OK) {
      continue;
    }
    const std::string text = part_of(url.get(), CURLUPART_PORT);
    uint16_t port = 1080;  // libcurl's for proxies
    if (!text.empty()) std::from_chars(text.data(), text.data() + text.size(), port);
    ports.push_back(port);
  }
}

// Names of hosts are looked up again, and certificates read again, for every connection.
void add_system_files(std::vector<std::string>& files) {
  for (const char* file : {"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf",
                           "/etc/host.conf", "/etc/services", "/etc/ssl/certs"}) {
    std::error_code error;
    if (fs::exists(file, error)) files.emplace_back(file);
  }
}

template <class T>
void keep_one_of_each(std::vector<T>& all) {
  std::ranges::sort(all);
  all.erase(std::unique(all.begin(), all.end()), all.end());
}

// The folder, because files are mostly replaced by new ones.
void add_folder_of(const std::string& file, std::vector<std::string>& folders) {
  std::error_code error;
  if (file.empty() || !fs::exists(file, error)) return;
  folders.push_back(fs::absolute(file, error).parent_path().string());
}

}  // namespace

Result<HttpTarget> http_target(const std::string& name) {
  TRY(load_curl());
  if (is_s3_name(name)) return store_target(name);
  const std::string shown = shown_name(name);
  const CurlUrl url = TRY(parse_url(name, shown));
  // Not sent to a server: what stands behind it would be lost.
  if (name.find('#') != std::string::npos) {
    return in_file(fail(ErrorKind::kUsage, "has a '#': write %23 for one in a name"), shown);
  }
  HttpTarget target;
  target.url = part_of(url.get(), CURLUPART_URL);
  target.shown = shown;
  target.ca_file = ca_file(false);
  return target;
}

Result<RemoteNeeds> needs_of(const std::vector<std::string>& names) {
  RemoteNeeds needs;
  // Those of servers that redirect, and of name servers whose answers are long.
  needs.ports = {53, 80, 443};
  bool store = false;
  for (const std::string& name : names) {
    // Without its credentials: no process is started.
    std::string url = name;
    if (is_s3_name(name)) {
      store = true;
      const StoreSettings settings = TRY(store_settings());
      url = first_of({settings.endpoint, "https://s3.amazonaws.com"});
    }
    const CurlUrl parsed = TRY(parse_url(url, shown_name(url)));
    const std::string port = part_of(parsed.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT);
    uint16_t number = 0;
    std::from_chars(port.data(), port.data() + port.size(), number);
    needs.ports.push_back(number);
    add_folder_of(ca_file(is_s3_name(name)), needs.readable);
  }
  add_proxies(needs.ports);
  add_system_files(needs.readable);
  if (store) {
    add_folder_of(aws_credentials_file(), needs.readable);
    add_folder_of(aws_config_file(), needs.readable);
  }
  keep_one_of_each(needs.readable);
  keep_one_of_each(needs.ports);
  return needs;
}

}  // namespace underlay
