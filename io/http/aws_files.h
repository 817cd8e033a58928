// The files of the AWS command line and SDKs: ~/.aws/credentials and ~/.aws/config.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "io/error.h"

namespace underlay {

// Keys of one profile. What is indented beneath a key is called KEY.NAME ("s3.addressing_style").
using AwsProfile = std::map<std::string, std::string, std::less<>>;

// The profile of that name in `text`, of either file: "[NAME]" or "[profile NAME]". Empty when it
// has none. Lines that make no sense are passed over, as the SDKs do.
AwsProfile aws_profile(std::string_view text, std::string_view name);

// Where the two files are: as AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE say, else in ~/.aws.
// "" when there is no home either.
std::string aws_credentials_file();
std::string aws_config_file();

// Those keys of the profile that AWS_PROFILE names (default: "default") which the file has. Empty
// when there is no such file. Blocks.
Result<AwsProfile> read_aws_profile(const std::string& path);

}  // namespace underlay
