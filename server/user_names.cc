#include "server/user_names.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <limits>
#include <optional>

namespace underlay {
namespace {

// -1 is no user: system calls take it for "as it is".
std::optional<uint32_t> parse_id(std::string_view text) {
  uint32_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  if (!whole || id == std::numeric_limits<uint32_t>::max()) return std::nullopt;
  return id;
}

}  // namespace

Result<uid_t> find_user(std::string_view option, const std::string& text) {
  if (const passwd* found = ::getpwnam(text.c_str())) return found->pw_uid;
  if (const auto id = parse_id(text)) return uid_t{*id};
  return fail(ErrorKind::kUsage, "{}: there is no user \"{}\"", option, printable(text, 80));
}

Result<gid_t> find_group(std::string_view option, const std::string& text) {
  if (const group* found = ::getgrnam(text.c_str())) return found->gr_gid;
  if (const auto id = parse_id(text)) return gid_t{*id};
  return fail(ErrorKind::kUsage, "{}: there is no group \"{}\"", option, printable(text, 80));
}

Result<ServiceUser> find_service_user(std::string_view option, const std::string& text) {
  const size_t colon = text.find(':');
  ServiceUser user;
  user.user = TRY(find_user(option, text.substr(0, colon)));
  const passwd* const entry = ::getpwuid(user.user);
  if (entry != nullptr) {
    user.name = entry->pw_name;
    user.group = entry->pw_gid;
  }
  if (colon != std::string::npos) {
    user.group = TRY(find_group(option, text.substr(colon + 1)));
  } else if (entry == nullptr) {
    return fail(ErrorKind::kUsage, "{}: user {} has no group of its own: say {}:GROUP", option,
                user.user, user.user);
  }
  return user;
}

Result<void> become(const ServiceUser& user) {
  const bool grouped = user.name.empty() ? ::setgroups(1, &user.group) == 0
                                         : ::initgroups(user.name.c_str(), user.group) == 0;
  if (!grouped || ::setresgid(user.group, user.group, user.group) != 0 ||
      ::setresuid(user.user, user.user, user.user) != 0) {
    return fail_errno(errno, "--user: cannot become user {}: start as root", user.user);
  }
  return {};
}

}  // namespace underlay
