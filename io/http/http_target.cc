#include "io/http/http_target.h"

#include "io/environment.h"
#include "io/http/http_url.h"
#include "io/http/remote_name.h"
#include "io/http/s3_store.h"

namespace underlay {
namespace {

Result<HttpTarget> store_target(const std::string& name) {
  const S3Store store = TRY(s3_store());
  HttpTarget target;
  target.url = TRY(s3_object_url(store, name));
  target.shown = name;
  target.lasting = lasting_url(target.url);
  target.ca_file = ca_file_for(name);
  target.signing = store.signing();
  target.credentials = TRY(AwsCredentialSource::of_process());
  return target;
}

}  // namespace

std::string ca_file_for(std::string_view name) {
  return first_set({is_s3_name(name) ? environment("AWS_CA_BUNDLE") : "",
                    environment("CURL_CA_BUNDLE"), environment("SSL_CERT_FILE")});
}

Result<HttpTarget> http_target(const std::string& name) {
  TRY(load_curl());
  if (is_s3_name(name)) return store_target(name);
  const std::string shown = shown_name(name);
  const CurlUrl url = TRY(parse_http_url(name, shown));
  // Not sent to a server: what stands behind it would be lost.
  if (name.find('#') != std::string::npos) {
    return in_file(fail(ErrorKind::kUsage, "has a '#': write %23 for one in a name"), shown);
  }
  HttpTarget target;
  target.url = url_part(url.get(), CURLUPART_URL);
  target.shown = shown;
  target.lasting = lasting_url(target.url);
  target.ca_file = ca_file_for(name);
  return target;
}

}  // namespace underlay
