#include "tools/thin/service_user.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <cerrno>

namespace underlay::thin {

Result<std::optional<ServiceUser>> service_user() {
  if (::geteuid() != 0) return std::optional<ServiceUser>();
  errno = 0;
  const passwd* const entry = ::getpwnam(kServiceUser);
  if (entry == nullptr) {
    const bool none = errno == 0 || errno == ENOENT || errno == ESRCH;
    if (none) return std::optional<ServiceUser>();
    return fail_errno(errno, "cannot look up the user {}", kServiceUser);
  }
  ServiceUser user{.uid = entry->pw_uid,
                   .gid = entry->pw_gid,
                   .groups = std::vector<gid_t>(256),
                   .home = entry->pw_dir};
  int count = static_cast<int>(user.groups.size());
  if (::getgrouplist(kServiceUser, user.gid, user.groups.data(), &count) < 0) {
    return fail(ErrorKind::kLimit, "the user {} is in {} groups, more than {}", kServiceUser, count,
                user.groups.size());
  }
  user.groups.resize(static_cast<size_t>(count));
  return std::optional(std::move(user));
}

}  // namespace underlay::thin
