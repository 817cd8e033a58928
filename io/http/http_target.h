// What is asked of a server for an object: its URL, and how requests are signed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/error.h"
#include "io/http/aws_credentials.h"

namespace underlay {

struct HttpTarget {
  std::string url;      // complete: it may hold a presigned URL's signature
  std::string shown;    // for messages; the folder in which names in the image start
  std::string ca_file;  // certificates of those who may vouch for the server; "" = the system's
  // Of an S3 store.
  std::string signing;                               // as CURLOPT_AWS_SIGV4 takes it; "" = no store
  std::shared_ptr<AwsCredentialSource> credentials;  // null: no store

  bool is_store() const { return !signing.empty(); }
};

// What `name` (remote_name.h) means, with the settings of the environment and of ~/.aws: endpoint
// (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, endpoint_url), region (AWS_REGION, AWS_DEFAULT_REGION,
// region; else us-east-1), and where the bucket stands (UNDERLAY_S3_ADDRESSING,
// s3.addressing_style: path or virtual; auto is virtual for Amazon's own endpoints). kUsage for
// what is no such name, and for URLs with a user or password. Blocks.
Result<HttpTarget> http_target(const std::string& name);

// What a process in a sandbox needs of the system to go on reading from servers.
struct RemoteNeeds {
  std::vector<std::string> readable;  // files and folders that exist
  std::vector<uint16_t> ports;        // TCP, that connections lead to
};
Result<RemoteNeeds> needs_of(const std::vector<std::string>& names);

}  // namespace underlay
