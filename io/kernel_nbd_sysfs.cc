#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>

#include "io/kernel_nbd.h"

namespace underlay {
namespace {

namespace fs = std::filesystem;

constexpr const char* kBlockFolder = "/sys/block";
constexpr uint64_t kSectorBytes = 512;  // sysfs counts in these, whatever the device's blocks

// A whole number in decimal digits only.
template <class T>
std::optional<T> parse_number(std::string_view text) {
  T number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || text[0] == '-' || parsed.ec != std::errc() ||
      parsed.ptr != text.data() + text.size()) {
    return std::nullopt;
  }
  return number;
}

// "nbd7" -> 7.
std::optional<unsigned> index_of_name(std::string_view name) {
  if (!name.starts_with("nbd")) return std::nullopt;
  return parse_number<unsigned>(name.substr(3));
}

// The first line of a file in sysfs; nullopt when it is not there (any more).
std::optional<std::string> attribute(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line) && !file.eof()) return std::nullopt;
  return line;
}

// Devices without a pid are not connected.
std::optional<KernelNbdDevice> read_device(const fs::path& folder, unsigned index) {
  if (!attribute(folder / "pid")) return std::nullopt;
  const auto sectors = parse_number<uint64_t>(attribute(folder / "size").value_or(""));
  if (!sectors) return std::nullopt;
  return KernelNbdDevice{.index = index,
                         .path = kernel_nbd_path(index),
                         .backend = attribute(folder / "backend").value_or(""),
                         .size_bytes = *sectors * kSectorBytes,
                         .read_only = attribute(folder / "ro") == "1"};
}

// The names in a folder; none when the folder is not there.
Result<std::vector<std::string>> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (!error || error == std::errc::no_such_file_or_directory) return names;
  return in_file(fail_errno(error.value(), "cannot list the folder"), folder.string());
}

}  // namespace

Result<std::vector<KernelNbdDevice>> connected_kernel_nbd() {
  std::vector<KernelNbdDevice> devices;
  for (const std::string& name : TRY(names_in(kBlockFolder))) {
    const auto index = index_of_name(name);
    if (!index) continue;
    if (auto device = read_device(kBlockFolder / fs::path(name), *index)) {
      devices.push_back(*std::move(device));
    }
  }
  std::sort(devices.begin(), devices.end(),
            [](const auto& a, const auto& b) { return a.index < b.index; });
  return devices;
}

Result<std::optional<KernelNbdDevice>> find_kernel_nbd(unsigned index) {
  for (KernelNbdDevice& device : TRY(connected_kernel_nbd())) {
    if (device.index == index) return std::optional(std::move(device));
  }
  return std::optional<KernelNbdDevice>();
}

Result<unsigned> kernel_nbd_index(const std::string& device) {
  struct stat status {};
  if (::stat(device.c_str(), &status) != 0) {
    const int reason = errno;
    constexpr std::string_view kFolder = "/dev/";
    const auto index = device.starts_with(kFolder)
                           ? index_of_name(std::string_view(device).substr(kFolder.size()))
                           : std::nullopt;
    if (index && reason == ENOENT) return *index;
    auto failure = fail_errno(reason, "cannot look at the device");
    failure.value().kind = ErrorKind::kUsage;
    return in_file(std::move(failure), device);
  }
  if (S_ISBLK(status.st_mode)) {
    // By number, because the node may have any name. A partition's folder lies in its device's.
    const auto link =
        fmt::format("/sys/dev/block/{}:{}", ::major(status.st_rdev), ::minor(status.st_rdev));
    std::error_code error;
    const fs::path folder = fs::read_symlink(link, error);
    const auto index = index_of_name(folder.filename().string());
    if (!error && index) return *index;
  }
  return in_file(fail(ErrorKind::kUsage, "is no nbd device: name one like /dev/nbd0"), device);
}

std::string kernel_nbd_path(unsigned index) { return fmt::format("/dev/nbd{}", index); }

}  // namespace underlay
