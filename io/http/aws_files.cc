#include "io/http/aws_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "io/environment.h"
#include "io/unique_fd.h"

namespace underlay {
namespace {

constexpr size_t kMaxFile = 1 << 20;  // bytes

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") + 1 - first);
}

// "[profile NAME]": NAME, whatever follows (a comment); "" of a heading that makes no sense, which
// no profile is called. nullopt when the line is none.
std::optional<std::string_view> heading(std::string_view line) {
  if (!line.starts_with('[')) return std::nullopt;
  const size_t end = line.find(']');
  if (end == std::string_view::npos) return std::string_view();
  std::string_view name = trimmed(line.substr(1, end - 1));
  if (name.starts_with("profile ")) name = trimmed(name.substr(8));
  return name;
}

Result<std::string> read_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid() && (errno == ENOENT || errno == ENOTDIR)) return std::string();
  if (!fd.valid()) return in_file(fail_errno(errno, "cannot open"), path);
  std::string text(kMaxFile + 1, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = ::read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return in_file(fail_errno(errno, "cannot read"), path);
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > kMaxFile) {
    return in_file(
        fail(ErrorKind::kLimit, "has more than {} bytes, which no such file has", kMaxFile), path);
  }
  text.resize(size);
  return text;
}

std::string in_home(const char* name) {
  const std::string home = environment("HOME");
  return home.empty() ? "" : home + "/.aws/" + name;
}

}  // namespace

AwsProfile aws_profile(std::string_view text, std::string_view name) {
  AwsProfile profile;
  bool inside = false;
  std::string outer;  // the key that indented ones belong to
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::string_view words = trimmed(line);
    if (words.empty() || words.front() == '#' || words.front() == ';') continue;
    if (const auto found = heading(words)) {
      inside = *found == name;
      outer.clear();
      continue;
    }
    const size_t equals = words.find('=');
    if (!inside || equals == std::string_view::npos) continue;
    std::string key(trimmed(words.substr(0, equals)));
    std::string value(trimmed(words.substr(equals + 1)));
    const bool indented = line.front() == ' ' || line.front() == '\t';
    if (indented && !outer.empty()) {
      key = outer + "." + key;
    } else {
      outer = value.empty() ? key : "";
    }
    profile[key] = std::move(value);
  }
  return profile;
}

std::string aws_credentials_file() {
  const std::string stated = environment("AWS_SHARED_CREDENTIALS_FILE");
  return stated.empty() ? in_home("credentials") : stated;
}

std::string aws_config_file() {
  const std::string stated = environment("AWS_CONFIG_FILE");
  return stated.empty() ? in_home("config") : stated;
}

Result<AwsProfile> read_aws_profile(const std::string& path) {
  if (path.empty()) return AwsProfile();
  const std::string name = environment("AWS_PROFILE");
  return aws_profile(TRY(read_file(path)), name.empty() ? "default" : name);
}

}  // namespace underlay
