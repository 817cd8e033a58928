// The user without rights that servers and readers of images run as.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "io/error.h"

namespace underlay::thin {

inline constexpr const char* kServiceUser = "underlay";

struct ServiceUser {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
  std::string home;  // where its keys for stores are (~/.aws)
};

// nullopt: there is none, or this process is not root and stays who it is. Fails when nobody can
// tell: what is to run without rights must not run as root because a look-up failed.
Result<std::optional<ServiceUser>> service_user();

}  // namespace underlay::thin
