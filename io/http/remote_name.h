// Names of images on web servers and S3 stores: http://HOST/PATH, https://HOST/PATH and
// s3://BUCKET/KEY. Nothing here needs libcurl.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/error.h"

namespace underlay {

bool is_remote_name(std::string_view name);
bool is_s3_name(std::string_view name);

// `name` for messages and logs: of a remote one without what may be secret, a query (the signature
// of a presigned URL) and a user with password; the member of an archive stays. Others are left as
// they are. Where such an image names a file, the name starts in the folder of this.
std::string shown_name(const std::string& name);

// Do both names mean one object, however they are written? "Yes" also for some that differ in what
// a server need not tell apart (RFC 3986, 6.2: %2F and a slash, say), and for versions of an
// object. "No" for a host of two names, and for an S3 store by its own name and its server's.
bool may_be_same_object(const std::string& one, const std::string& other);

// `url`, http or https, without its secrets, but with all that chooses the object: so of its query
// the version of an object stays, and what signs it (of presigned URLs of Amazon, Google and Azure)
// goes. "" when the query has anything else, which may be either.
std::string lasting_url(const std::string& url);

// The remote name that `name`, which stands in the image `namer` (a shown_name()), means. It must
// lead beneath the folder of `namer`, or beneath one of `allowed` (remote_folder()); else kDenied,
// also for absolute names, which are those of a local disk. kMalformed for what can be no file's
// name. Errors name the namer.
Result<std::string> name_beside(const std::string& namer, std::string_view name,
                                const std::vector<std::string>& allowed);

// `name` of a folder, with a slash behind it. kUsage for a URL with a query or a user.
Result<std::string> remote_folder(const std::string& name);

}  // namespace underlay
