#include "io/http/s3_store.h"

#include <fmt/format.h>

#include "io/environment.h"
#include "io/http/aws_files.h"
#include "io/http/http_url.h"
#include "io/http/remote_name.h"
#include "io/percent_encoding.h"

namespace underlay {
namespace {

constexpr size_t kMaxBucket = 255;

// The endpoint, or "" when nobody states one; errors name who did.
Result<std::string> stated_endpoint(const AwsProfile& profile) {
  const auto checked = [](std::string url, const std::string& where) -> Result<std::string> {
    const CurlUrl parsed = TRY(parse_http_url(url, where));
    if (url.find_first_of("?#") != std::string::npos) {
      return in_file(fail(ErrorKind::kUsage, "must have no '?' and no '#'"), where);
    }
    while (url.ends_with('/')) url.pop_back();
    return url;
  };
  for (const char* name : {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}) {
    if (std::string url = environment(name); !url.empty()) return checked(std::move(url), name);
  }
  for (const char* key : {"s3.endpoint_url", "endpoint_url"}) {
    const auto found = profile.find(key);
    if (found == profile.end() || found->second.empty()) continue;
    return checked(found->second, fmt::format("{}, {}", aws_config_file(), key));
  }
  return std::string();
}

std::string value_of(const AwsProfile& profile, std::string_view key) {
  const auto found = profile.find(key);
  return found == profile.end() ? std::string() : found->second;
}

Result<void> choose_addressing(const AwsProfile& profile, bool amazons, S3Store& store) {
  const std::string style = first_set(
      {environment("UNDERLAY_S3_ADDRESSING"), value_of(profile, "s3.addressing_style"), "auto"});
  store.bucket_in_path = style == "path" || (style == "auto" && !amazons);
  store.dotted_in_path = style != "virtual";
  if (style == "auto" || style == "path" || style == "virtual") return {};
  return fail(ErrorKind::kUsage,
              "UNDERLAY_S3_ADDRESSING or addressing_style \"{}\": is not one of: path, virtual, "
              "auto",
              printable(style, 80));
}

bool is_bucket_name(std::string_view bucket) {
  return !bucket.empty() && bucket.size() <= kMaxBucket && percent_encoded(bucket, "") == bucket &&
         bucket.find('~') == std::string_view::npos && bucket != "." && bucket != "..";
}

}  // namespace

std::string S3Store::signing() const { return fmt::format("aws:amz:{}:s3", region); }

Result<S3Store> s3_store() {
  const AwsProfile profile = TRY(read_aws_profile(aws_config_file()));
  S3Store store;
  store.region = first_set({environment("AWS_REGION"), environment("AWS_DEFAULT_REGION"),
                            value_of(profile, "region"), "us-east-1"});
  store.endpoint = TRY(stated_endpoint(profile));
  const bool amazons = store.endpoint.empty();
  if (amazons) store.endpoint = fmt::format("https://s3.{}.amazonaws.com", store.region);
  TRY(choose_addressing(profile, amazons, store));
  return store;
}

Result<std::string> s3_object_url(const S3Store& store, const std::string& name) {
  const std::string place = name.substr(std::string_view("s3://").size());
  const size_t slash = place.find('/');
  const std::string bucket = place.substr(0, slash);
  if (slash == std::string::npos || slash + 1 == place.size() || !is_bucket_name(bucket)) {
    return in_file(fail(ErrorKind::kUsage, "is no s3://BUCKET/KEY"), name);
  }
  const std::string key = percent_encoded(place.substr(slash + 1), "/");
  const bool dotted = bucket.find('.') != std::string::npos;
  if (store.bucket_in_path || (dotted && store.dotted_in_path)) {
    return fmt::format("{}/{}/{}", store.endpoint, bucket, key);
  }
  // There is nobody before the host: parse_http_url() takes no user.
  std::string with_bucket = store.endpoint;
  with_bucket.insert(with_bucket.find("://") + 3, bucket + ".");
  return with_bucket + "/" + key;
}

}  // namespace underlay
