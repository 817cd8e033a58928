// Where an S3 store is, and how its buckets are addressed.
#pragma once

#include <string>
#include <string_view>

#include "io/error.h"

namespace underlay {

struct S3Store {
  std::string endpoint;  // http:// or https://, no query, no slash behind it
  std::string region;
  // Else it is a part of the host's name; certificates of Amazon's fit no name with a dot in it.
  bool bucket_in_path = false;
  bool dotted_in_path = false;

  // As CURLOPT_AWS_SIGV4 takes it.
  std::string signing() const;
};

// As the environment and the profile in ~/.aws/config say: endpoint (AWS_ENDPOINT_URL_S3,
// AWS_ENDPOINT_URL, endpoint_url; else Amazon's of the region), region (AWS_REGION,
// AWS_DEFAULT_REGION, region; else us-east-1), and where the bucket stands (UNDERLAY_S3_ADDRESSING,
// s3.addressing_style: path or virtual; auto is virtual for Amazon's own endpoints). kUsage for
// what makes no sense. Blocks.
Result<S3Store> s3_store();

// The URL of the object that `name`, s3://BUCKET/KEY, means there.
Result<std::string> s3_object_url(const S3Store& store, const std::string& name);

}  // namespace underlay
