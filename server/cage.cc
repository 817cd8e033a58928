#include "server/cage.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>

#include "server/landlock.h"
#include "server/system_calls.h"

namespace underlay {
namespace {

// As bits of a capability set. Reading files of others, learning that their pages are in memory
// (cachestat), and, with -c, taking the device down.
constexpr uint64_t kForReading =
    1ull << CAP_DAC_READ_SEARCH | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FOWNER;
constexpr uint64_t kForDevice = 1ull << CAP_SYS_ADMIN | 1ull << CAP_NET_ADMIN;

// Those of `kept` that the process has now stay.
Result<void> keep_capabilities(uint64_t kept) {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, 2> sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) {
    return fail_errno(errno, "cannot learn the process's capabilities");
  }
  for (size_t i = 0; i < sets.size(); ++i) {
    const auto part = static_cast<uint32_t>(kept >> (32 * i));
    sets[i].effective &= part;
    sets[i].permitted &= part;
    sets[i].inheritable = 0;
  }
  if (::syscall(SYS_capset, &header, sets.data()) != 0) {
    return fail_errno(errno, "cannot drop the process's capabilities");
  }
  return {};
}

// What the server holds in memory, secrets among it, is nobody's business.
Result<void> limit_resources() {
  constexpr rlimit kNone{.rlim_cur = 0, .rlim_max = 0};
  if (::setrlimit(RLIMIT_CORE, &kNone) != 0) return fail_errno(errno, "cannot forbid core dumps");
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return fail_errno(errno, "cannot hide the process's memory");
  }
  return {};
}

std::vector<std::string> folders_of(const std::vector<std::string>& files) {
  std::vector<std::string> folders;
  for (const std::string& file : files) {
    std::string folder = std::filesystem::absolute(file).parent_path().string();
    if (std::find(folders.begin(), folders.end(), folder) == folders.end()) {
      folders.push_back(std::move(folder));
    }
  }
  return folders;
}

}  // namespace

Result<CageReport> enter_cage(const CagePlan& plan) {
  CageReport report;
  TRY(limit_resources());
  TRY(keep_capabilities(kForReading | (plan.kernel_device ? kForDevice : 0)));
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return fail_errno(errno, "cannot set no_new_privs");
  }
  LandlockRights rights{.readable = plan.folders,
                        .removed_from = folders_of(plan.removed),
                        .written = plan.written,
                        .ports = plan.ports};
  // What the kernel says of its devices.
  if (plan.kernel_device) rights.readable.emplace_back("/sys");
  rights.readable.insert(rights.readable.end(), plan.system_files.begin(), plan.system_files.end());
  if (const int version = landlock_version(); version > 0) {
    TRY(restrict_by_landlock(rights));
    if (version < 4) report.missing.emplace_back("Landlock's rules about connections (Linux 6.7)");
    if (version < 6) report.missing.emplace_back("Landlock's rules about signals (Linux 6.12)");
  } else {
    report.missing.emplace_back("Landlock (Linux 5.13, and landlock in lsm=)");
  }
  TRY(allow_only({.opens_files = !plan.folders.empty() || plan.connects(),
                  .writes_files = !plan.written.empty(),
                  .connects = plan.connects(),
                  .removes_files = !plan.removed.empty(),
                  .kernel_device = plan.kernel_device}));
  return report;
}

bool is_cage_possible() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return false;
#else
  return true;
#endif
#else
  return true;
#endif
}

}  // namespace underlay
