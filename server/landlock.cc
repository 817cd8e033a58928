#include "server/landlock.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "io/unique_fd.h"

namespace underlay {
namespace {

// struct landlock_ruleset_attr of version 6; the C library's headers know an older one. The kernel
// takes a shorter one, too.
struct RulesetAttributes {
  uint64_t handled_access_fs = 0;
  uint64_t handled_access_net = 0;  // from version 4 on
  uint64_t scoped = 0;              // from version 6 on
};

// All rights to files that version 1 has.
constexpr uint64_t kFilesVersion1 = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;
constexpr uint64_t kRefer = 1ull << 13;     // version 2
constexpr uint64_t kTruncate = 1ull << 14;  // version 3
constexpr uint64_t kIoctlDev = 1ull << 15;  // version 5
constexpr uint64_t kBindTcp = 1ull << 0;    // version 4
constexpr uint64_t kConnectTcp = 1ull << 1;
constexpr uint64_t kScopeAbstractUnixSocket = 1ull << 0;  // version 6
constexpr uint64_t kScopeSignal = 1ull << 1;

RulesetAttributes attributes_of(int version) {
  RulesetAttributes attributes;
  attributes.handled_access_fs = kFilesVersion1;
  if (version >= 2) attributes.handled_access_fs |= kRefer;
  if (version >= 3) attributes.handled_access_fs |= kTruncate;
  if (version >= 4) attributes.handled_access_net = kBindTcp | kConnectTcp;
  if (version >= 5) attributes.handled_access_fs |= kIoctlDev;
  if (version >= 6) attributes.scoped = kScopeAbstractUnixSocket | kScopeSignal;
  return attributes;
}

size_t attributes_size(int version) {
  if (version >= 6) return sizeof(RulesetAttributes);
  return version >= 4 ? offsetof(RulesetAttributes, scoped)
                      : offsetof(RulesetAttributes, handled_access_net);
}

// struct landlock_net_port_attr and its rule's type, of version 4.
struct PortAttributes {
  uint64_t allowed_access = 0;
  uint64_t port = 0;
};
constexpr int kRuleNetPort = 2;

// Files have no right to be listed.
constexpr uint64_t kForFolders = LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE;

Result<void> allow(const UniqueFd& ruleset, const std::string& place, uint64_t rights) {
  const UniqueFd fd(::open(place.c_str(), O_PATH | O_CLOEXEC));
  struct stat status;
  if (!fd.valid() || ::fstat(fd.get(), &status) != 0) {
    return in_file(fail_errno(errno, "cannot open it"), place);
  }
  if (!S_ISDIR(status.st_mode)) rights &= ~kForFolders;
  landlock_path_beneath_attr rule{.allowed_access = rights, .parent_fd = fd.get()};
  if (::syscall(SYS_landlock_add_rule, ruleset.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0) {
    return in_file(fail_errno(errno, "Landlock takes no rule about it"), place);
  }
  return {};
}

Result<void> allow_port(const UniqueFd& ruleset, uint16_t port) {
  const PortAttributes rule{.allowed_access = kConnectTcp, .port = port};
  if (::syscall(SYS_landlock_add_rule, ruleset.get(), kRuleNetPort, &rule, 0) != 0) {
    return fail_errno(errno, "Landlock takes no rule about port {}", port);
  }
  return {};
}

}  // namespace

int landlock_version() {
  const long version =
      ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  return version < 0 ? 0 : static_cast<int>(version);
}

Result<void> restrict_by_landlock(const LandlockRights& rights) {
  const int version = landlock_version();
  const RulesetAttributes attributes = attributes_of(version);
  const UniqueFd ruleset(static_cast<int>(
      ::syscall(SYS_landlock_create_ruleset, &attributes, attributes_size(version), 0)));
  if (!ruleset.valid()) return fail_errno(errno, "cannot make a Landlock ruleset");
  for (const std::string& folder : rights.readable) {
    TRY(allow(ruleset, folder, LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR));
  }
  for (const std::string& folder : rights.removed_from) {
    TRY(allow(ruleset, folder, LANDLOCK_ACCESS_FS_REMOVE_FILE));
  }
  for (const std::string& folder : rights.written) {
    TRY(allow(ruleset, folder,
              LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |
                  LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |
                  LANDLOCK_ACCESS_FS_REMOVE_FILE));
  }
  for (const uint16_t port : rights.ports) {
    if (version >= 4) TRY(allow_port(ruleset, port));
  }
  if (::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0) {
    return fail_errno(errno, "Landlock does not restrict this process");
  }
  return {};
}

}  // namespace underlay
