#include "io/block_device_holders.h"

#include <dirent.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace underlay {
namespace {

namespace fs = std::filesystem;

// Holders that are named; a busy device may have thousands.
constexpr size_t kMaxHolders = 16;

struct Wanted {
  dev_t device = 0;
  std::vector<std::string>& holders;

  void add(std::string holder) {
    if (std::find(holders.begin(), holders.end(), holder) == holders.end()) {
      holders.push_back(std::move(holder));
    }
  }
};

std::string first_line(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

// Entries of a folder; none when it is not there or goes away meanwhile.
std::vector<fs::path> entries(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code code;
  for (fs::directory_iterator it(folder, code), end; !code && it != end; it.increment(code)) {
    paths.push_back(it->path());
  }
  return paths;
}

fs::path sysfs_folder(dev_t device) {
  return fmt::format("/sys/dev/block/{}:{}", ::major(device), ::minor(device));
}

// "dm-3" -> "/dev/mapper/vm1".
std::string device_name(const std::string& kernel_name) {
  const std::string mapped = first_line("/sys/block/" + kernel_name + "/dm/name");
  return mapped.empty() ? "/dev/" + kernel_name : "/dev/mapper/" + mapped;
}

bool is_block_device(const std::string& path, dev_t device) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISBLK(status.st_mode) && status.st_rdev == device;
}

void find_stacked(Wanted& wanted) {
  for (const fs::path& holder : entries(sysfs_folder(wanted.device) / "holders")) {
    wanted.add(device_name(holder.filename()));
  }
  // Loop devices on the device itself are not among its holders.
  for (const fs::path& disk : entries("/sys/block")) {
    const std::string backing = first_line(disk / "loop/backing_file");
    if (!backing.empty() && is_block_device(backing, wanted.device)) {
      wanted.add("/dev/" + disk.filename().string());
    }
  }
}

// Spaces and the like stand as \040 in the kernel's lists of mounts.
std::string unescape_octal(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](size_t at) { return text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && i + 3 < text.size() && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      const int value = (text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0');
      plain += static_cast<char>(value);
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

// A line is "ID PARENT MAJOR:MINOR ROOT PLACE OPTIONS... - TYPE SOURCE ...". The number is not the
// device's for file systems that span devices; then the source tells.
void find_mounts(Wanted& wanted) {
  const std::string number = fmt::format("{}:{}", ::major(wanted.device), ::minor(wanted.device));
  std::ifstream in("/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string word, found, place, type, source;
    words >> word >> word >> found >> word >> place;
    while (words >> word && word != "-") {
    }
    words >> type >> source;
    if (found == number ||
        (source.starts_with('/') && is_block_device(unescape_octal(source), wanted.device))) {
      wanted.add("a mount on " + printable(unescape_octal(place)));
    }
  }
}

void find_swap(Wanted& wanted) {
  std::ifstream in("/proc/swaps");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string source;
    words >> source;
    if (source.starts_with('/') && is_block_device(unescape_octal(source), wanted.device)) {
      wanted.add("swap");
    }
  }
}

void find_processes(Wanted& wanted) {
  const std::string self = std::to_string(::getpid());
  for (const fs::path& process : entries("/proc")) {
    const std::string id = process.filename();
    const bool is_number = std::all_of(id.begin(), id.end(), [](char c) {
      return std::isdigit(static_cast<unsigned char>(c)) != 0;
    });
    if (!is_number || id == self) continue;
    for (const fs::path& descriptor : entries(process / "fd")) {
      if (!is_block_device(descriptor, wanted.device)) continue;
      wanted.add(fmt::format("process {} ({})", id, printable(first_line(process / "comm"))));
      break;
    }
    if (wanted.holders.size() > kMaxHolders) return;
  }
}

std::vector<dev_t> with_partitions(dev_t device) {
  std::vector<dev_t> devices{device};
  for (const fs::path& entry : entries(sysfs_folder(device))) {
    if (!fs::exists(entry / "partition")) continue;
    std::istringstream number(first_line(entry / "dev"));
    unsigned partition_major = 0, partition_minor = 0;
    char colon = 0;
    if (number >> partition_major >> colon >> partition_minor) {
      devices.push_back(::makedev(partition_major, partition_minor));
    }
  }
  return devices;
}

}  // namespace

Result<std::vector<std::string>> block_device_holders(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return in_file(fail_errno(errno, "looking at the device"), path);
  }
  if (!S_ISBLK(status.st_mode)) {
    return in_file(fail(ErrorKind::kUsage, "is not a block device"), path);
  }
  std::vector<std::string> holders;
  for (const dev_t device : with_partitions(status.st_rdev)) {
    Wanted wanted{.device = device, .holders = holders};
    find_stacked(wanted);
    find_mounts(wanted);
    find_swap(wanted);
    find_processes(wanted);
  }
  return holders;
}

std::string join_holders(const std::vector<std::string>& holders) {
  std::string joined;
  for (size_t i = 0; i < holders.size() && i < kMaxHolders; ++i) {
    if (!joined.empty()) joined += ", ";
    joined += holders[i];
  }
  if (holders.size() > kMaxHolders) joined += " and others";
  return joined;
}

}  // namespace underlay
