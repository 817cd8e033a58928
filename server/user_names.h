// Users and groups, by name or number.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "io/error.h"

namespace underlay {

// Fail with kUsage, naming `option`, when there is no such user or group. May block (NSS).
Result<uid_t> find_user(std::string_view option, const std::string& text);
Result<gid_t> find_group(std::string_view option, const std::string& text);

// Who the server becomes once it has opened all it needs.
struct ServiceUser {
  std::string name;  // of the user, "" when it has none
  uid_t user = 0;
  gid_t group = 0;
};
// "USER" or "USER:GROUP"; without GROUP the user's own. The same.
Result<ServiceUser> find_service_user(std::string_view option, const std::string& text);

// Becomes that user for good, with the groups that it is in. Fails when the process may not.
// REQUIRES: one thread.
Result<void> become(const ServiceUser& user);

}  // namespace underlay
