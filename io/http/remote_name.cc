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

// Parameters of a query, in lower case, that choose one of an object's versions.
constexpr std::array<std::string_view, 3> kVersions = {"versionid", "generation", "snapshot"};

// A way to sign a URL. Its parameters choose nothing where its signature is; elsewhere they may
// mean anything.
struct SignatureFamily {
  std::string_view signature;
  std::string_view prefix;  // of its parameters; "": they are
  std::string_view names;   // these, each between spaces
};
constexpr std::array<SignatureFamily, 4> kFamilies = {{
    {"x-amz-signature", "x-amz-", ""},    // Amazon S3, version 4
    {"x-goog-signature", "x-goog-", ""},  // Google
    // Amazon S3, version 2; CloudFront; Google, of old
    {"signature", "",
     " awsaccesskeyid expires googleaccessid key-pair-id policy x-amz-security-token "},
    // Azure
    {"sig", "", " saoid scid se si sip ske skoid sks skt sktid skv sp spr sr srt ss st sv "},
}};

std::string in_lower_case(std::string_view text) {
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(), [](char letter) {
    return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
  });
  return lower;
}

std::string name_of(std::string_view parameter) {
  return in_lower_case(parameter.substr(0, parameter.find('=')));
}

std::vector<std::string_view> parameters_of(std::string_view query) {
  std::vector<std::string_view> parameters;
  while (!query.empty()) {
    const std::string_view parameter = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), parameter.size() + 1));
    if (!parameter.empty()) parameters.push_back(parameter);
  }
  return parameters;
}

bool belongs_to(const SignatureFamily& family, const std::string& name) {
  if (name == family.signature) return true;
  return family.prefix.empty() ? family.names.find(" " + name + " ") != std::string_view::npos
                               : name.starts_with(family.prefix);
}

// Is it a part of a signature that is there?
bool only_signs(std::string_view parameter, const std::vector<std::string_view>& all) {
  const std::string name = name_of(parameter);
  return std::ranges::any_of(kFamilies, [&](const SignatureFamily& family) {
    return belongs_to(family, name) && std::ranges::any_of(all, [&](std::string_view other) {
             return name_of(other) == family.signature;
           });
  });
}

std::string without_default_port(std::string authority, std::string_view scheme) {
  const size_t colon = authority.rfind(':');
  if (colon == std::string::npos || authority.ends_with(']')) return authority;
  std::string_view port = std::string_view(authority).substr(colon + 1);
  port.remove_prefix(std::min(port.find_first_not_of('0'), port.size()));
  const bool is_default = port.empty() || port == (scheme == "http://" ? "80" : "443");
  return authority.substr(0, colon) + (is_default ? "" : ":" + std::string(port));
}

// RFC 3986, 6.2.2 and 6.2.3, but decoded.
std::string comparable(const std::string& name) {
  const std::string shown = shown_name(name);
  if (!is_remote_name(name)) return shown;
  const size_t authority = authority_of(shown);
  const std::string scheme = in_lower_case(shown.substr(0, authority));
  if (is_s3_name(name)) return scheme + shown.substr(authority);
  const size_t path = std::min(shown.find('/', authority), shown.size());
  std::string text = scheme + without_default_port(
                                  in_lower_case(shown.substr(authority, path - authority)), scheme);
  const std::string decoded = percent_decoded(shown.substr(path));
  std::vector<std::string_view> parts;
  for (size_t start = 0; start < decoded.size();) {
    const size_t end = std::min(decoded.find('/', start + 1), decoded.size());
    // Above the root is the root (5.2.4).
    if (!resolve_dots(std::string_view(decoded).substr(start + 1, end - start - 1), Empty::kKeep,
                      parts)) {
      parts.clear();
    }
    start = end;
  }
  for (const std::string_view part : parts) {
    if (!part.empty()) text.append("/").append(part);
  }
  return text;
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

bool may_be_same_object(const std::string& one, const std::string& other) {
  return comparable(one) == comparable(other);
}

std::string lasting_url(const std::string& url) {
  std::string lasting = shown_name(url);
  const size_t start = url.find('?');
  if (start == std::string::npos) return lasting;
  const auto parameters = parameters_of(std::string_view(url).substr(start + 1));
  char before = '?';
  for (const std::string_view parameter : parameters) {
    if (std::ranges::find(kVersions, name_of(parameter)) != kVersions.end()) {
      lasting.append(1, before).append(parameter);
      before = '&';
    } else if (!only_signs(parameter, parameters)) {
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
