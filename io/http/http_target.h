// What is asked of a server for an object: its URL, and how requests are signed.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "io/error.h"
#include "io/http/aws_credentials.h"

namespace underlay {

struct HttpTarget {
  std::string url;      // complete: it may hold a presigned URL's signature
  std::string shown;    // for messages; the folder in which names in the image start
  std::string lasting;  // Source::lasting_name()
  std::string ca_file;  // certificates of those who may vouch for the server; "" = the system's
  // Of an S3 store.
  std::string signing;                               // as CURLOPT_AWS_SIGV4 takes it; "" = no store
  std::shared_ptr<AwsCredentialSource> credentials;  // null: no store

  bool is_store() const { return !signing.empty(); }
};

// What `name` (remote_name.h) means, with the settings of the environment and of ~/.aws
// (s3_store.h). kUsage for what is no such name, and for URLs with a user or password. Blocks.
Result<HttpTarget> http_target(const std::string& name);

// The file with the certificates of those who may vouch for the server of `name`, as the
// environment says it to the programs curl and aws; "" = the system's.
std::string ca_file_for(std::string_view name);

}  // namespace underlay
