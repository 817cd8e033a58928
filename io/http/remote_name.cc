#include "io/http/remote_name.h"

#include <strings.h>

#include <algorithm>
#include <array>

#include "io/percent_encoding.h"

namespace underlay {
namespace {

constexpr std::string_view kS3 = "s3://";
constexpr std::array<std::string_view, 3> kSchemes = {"http://", "https://", kS3};

// As much as servers and stores take (S3: 1024 bytes of a key, which may become three times that).
constexpr size_t kMaxName = 4096;

// RFC 3986, 3.1: whatever the case of its letters.
bool begins_with(std::string_view name, std::string_view scheme) {
  return name.size() >= scheme.size() &&
         ::strncasecmp(name.data(), scheme.data(), scheme.size()) == 0;
}

// Where the authority (of S3: the bucket) begins.
size_t authority_of(std::string_view name) { return name.find("://") + 3; }

// Adds the parts of a path without "." and with each ".." taken off with what precedes it. False
// when there is nothing to take off. Two slashes are one to who writes a name, but not to servers.
enum class Empty : uint8_t { kDrop, kKeep };
bool resolve_dots(std::string_view path, Empty empty, std::vector<std::string_view>& parts) {
  while (true) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part == "..") {
      if (parts.empty()) return false;
      parts.pop_back();
    } else if (part != "." && (!part.empty() || empty == Empty::kKeep)) {
      parts.push_back(part);
    }
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

// Parameters of a query, in lower case: those that choose one of an object's versions, and those
// that sign a URL (Amazon S3, signature versions 4 and 2; CloudFront; Google; Azure).
constexpr std::array<std::string_view, 3> kVersions = {"versionid", "generation", "snapshot"};
constexpr std::array<std::string_view, 2> kSignatureFamilies = {"x-amz-", "x-goog-"};
constexpr std::string_view kSignatures =
    " awsaccesskeyid googleaccessid signature expires key-pair-id policy saoid scid se si sig sip "
    "ske skoid sks skt sktid skv sp spr sr srt ss st sv ";

enum class Parameter : uint8_t { kVersion, kSignature, kUnknown };

Parameter kind_of_parameter(std::string_view parameter) {
  std::string name(parameter.substr(0, parameter.find('=')));
  std::ranges::transform(name, name.begin(), [](char letter) {
    return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
  });
  const auto begins = [&](std::string_view family) { return name.starts_with(family); };
  if (std::ranges::find(kVersions, name) != kVersions.end()) return Parameter::kVersion;
  const bool signs = std::ranges::any_of(kSignatureFamilies, begins) ||
                     kSignatures.find(" " + name + " ") != std::string_view::npos;
  return signs ? Parameter::kSignature : Parameter::kUnknown;
}

}  // namespace

bool is_s3_name(std::string_view name) { return begins_with(name, kS3); }

bool is_remote_name(std::string_view name) {
  return std::ranges::any_of(kSchemes,
                             [&](std::string_view scheme) { return begins_with(name, scheme); });
}

std::string shown_name(const std::string& name) {
  // A key may hold any letter.
  if (!is_remote_name(name) || is_s3_name(name)) return name;
  std::string shown = name;
  const size_t member = std::min(name.find('#'), name.size());
  if (const size_t query = name.find('?'); query < member) shown.erase(query, member - query);
  const size_t start = authority_of(shown);
  const size_t end = std::min(shown.find_first_of("/#", start), shown.size());
  const size_t at = shown.substr(0, end).rfind('@');
  if (at != std::string::npos && at >= start) shown.erase(start, at + 1 - start);
  return shown;
}

std::string lasting_url(const std::string& url) {
  std::string lasting = shown_name(url);
  const size_t start = url.find('?');
  if (start == std::string::npos) return lasting;
  std::string_view query = std::string_view(url).substr(start + 1);
  char before = '?';
  while (!query.empty()) {
    const std::string_view parameter = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), parameter.size() + 1));
    if (parameter.empty()) continue;
    switch (kind_of_parameter(parameter)) {
      case Parameter::kVersion:
        lasting.append(1, before).append(parameter);
        before = '&';
        break;
      case Parameter::kSignature:
        break;
      case Parameter::kUnknown:
        return {};
    }
  }
  return lasting;
}

Result<std::string> name_beside(const std::string& namer, std::string_view name,
                                const std::vector<std::string>& allowed) {
  const auto denied = [&](std::string_view why) {
    return in_file(fail(ErrorKind::kDenied, "names the file \"{}\", {}", printable(name, 200), why),
                   namer);
  };
  if (name.empty() || name.size() > kMaxName || name.find('\0') != std::string_view::npos) {
    return in_file(fail(ErrorKind::kMalformed,
                        "names the file \"{}\": a file name has 1 to {} bytes and no NUL",
                        printable(name, 80), kMaxName),
                   namer);
  }
  if (name.front() == '/') {
    return denied(
        "an absolute path: an image on a server names only what lies beside it there; --parent "
        "CHILD=PATH says where the parent is");
  }
  const size_t root = namer.find('/', authority_of(namer));
  if (root == std::string::npos) return denied("but lies in no folder itself");
  const std::string folder = namer.substr(root + 1, namer.rfind('/') - root);
  const std::string named = is_s3_name(namer) ? std::string(name) : percent_encoded(name, "/");
  std::vector<std::string_view> parts;
  const auto place = [&] {
    std::string text = namer.substr(0, root);
    for (const std::string_view part : parts) text.append("/").append(part);
    return text;
  };
  constexpr std::string_view kOut =
      "which leads out of the image's folder; --allow-path URL allows what lies beneath URL";
  // Its last part is empty: it ends with a slash.
  if (!resolve_dots(folder, Empty::kKeep, parts)) return denied(kOut);
  if (!parts.empty()) parts.pop_back();
  const std::string home = place() + "/";
  if (!resolve_dots(named, Empty::kDrop, parts) || parts.empty()) return denied(kOut);
  const std::string resolved = place();
  const auto holds = [&](const std::string& prefix) {
    return resolved.size() > prefix.size() && resolved.starts_with(prefix);
  };
  if (!holds(home) && std::ranges::none_of(allowed, holds)) return denied(kOut);
  return resolved;
}

Result<std::string> remote_folder(const std::string& name) {
  if (shown_name(name) != name || (name.find('#') != std::string::npos && !is_s3_name(name))) {
    return fail(ErrorKind::kUsage, "{}: the URL of a folder has no user, no query and no '#'",
                shown_name(name));
  }
  return name.ends_with('/') ? name : name + '/';
}

}  // namespace underlay
