#include "formats/vhd/vhd_words.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <array>
#include <span>

namespace underlay::vhd {
namespace {

// Seconds from 1970 to 2000, where time stamps begin.
constexpr int64_t kEpoch = 946684800;

struct Name {
  std::string_view code;
  std::string_view words;
};

std::string_view words_of(std::string_view code, std::span<const Name> names) {
  const auto found =
      std::find_if(names.begin(), names.end(), [&](const Name& name) { return name.code == code; });
  return found == names.end() ? "" : found->words;
}

std::string_view application_of(const Footer& footer) {
  using namespace std::string_view_literals;
  static constexpr std::array kApplications = {
      Name{"vpc "sv, "Virtual PC"},   Name{"vs  "sv, "Virtual Server"},
      Name{"win "sv, "Windows"},      Name{"d2v "sv, "Disk2vhd"},
      Name{"qemu"sv, "QEMU"},         Name{"qem2"sv, "QEMU, which means current_size"},
      Name{"vbox"sv, "VirtualBox"},   Name{"tap\0"sv, "tapdisk"},
      Name{"CTXS"sv, "XenConverter"}, Name{"wa\0\0"sv, "Azure"},
  };
  return words_of(footer.creator(), kApplications);
}

}  // namespace

std::string date_of(uint32_t time_stamp) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time_t{kEpoch + time_stamp}));
}

std::string code_text(std::string_view code) {
  while (code.ends_with(' ') || code.ends_with('\0')) code.remove_suffix(1);
  return printable(code);
}

std::string_view host_os_of(std::string_view code) {
  static constexpr std::array kSystems = {Name{"Wi2k", "Windows"}, Name{"Mac ", "Mac OS"}};
  return words_of(code, kSystems);
}

std::string creator_of(const Footer& footer) {
  const std::string_view known = application_of(footer);
  const std::string name = known.empty() ? code_text(footer.creator()) : std::string(known);
  return name.empty() ? "" : fmt::format("{} {}", name, version_text(footer.creator_version));
}

std::string version_text(uint32_t version) {
  return fmt::format("{}.{}", version >> 16, version & 0xffff);
}

std::string_view type_name(uint32_t disk_type) {
  switch (disk_type) {
    case kTypeFixed:
      return "fixed";
    case kTypeDynamic:
      return "dynamic";
    case kTypeDifferencing:
      return "differencing";
    default:
      return "unknown";
  }
}

}  // namespace underlay::vhd
