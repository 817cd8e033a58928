#include "formats/vhd_parent.h"

#include <algorithm>

#include "formats/utf16.h"
#include "formats/windows_path.h"

namespace underlay::vhd {
namespace {

constexpr char32_t kByteOrderMark = 0xfeff;
constexpr char32_t kSwappedByteOrderMark = 0xfffe;

int hex_digit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

// RFC 3986 section 2.1; what is no %XX stays as it is.
std::string percent_decoded(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    const int high = text[i] == '%' && text.size() - i > 2 ? hex_digit(text[i + 1]) : -1;
    const int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
    if (low < 0) {
      decoded += text[i];
      continue;
    }
    decoded += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return decoded;
}

bool is_text(std::string_view name) { return name.find('\0') == std::string_view::npos; }

// Decodes one locator's data into names.
std::vector<std::string> names_of_locator(const ParentLocator& locator, ByteSpan data) {
  if (locator.code() == "MacX") {
    std::string_view url = as_text(data);
    while (url.ends_with('\0')) url.remove_suffix(1);
    return names_of_file_url(url);
  }
  const auto path = utf16_to_utf8(data, ByteOrder::kLittle);
  if (!path) return {};
  return {name_of_windows_path(*path)};
}

// Collects names, each once.
void add_names(std::vector<std::string>& names, std::vector<std::string> more) {
  for (std::string& name : more) {
    if (name.empty() || std::find(names.begin(), names.end(), name) != names.end()) continue;
    names.push_back(std::move(name));
  }
}

}  // namespace

std::string parent_unicode_name(const DynamicHeader& header) {
  ByteSpan bytes = header.parent_unicode_name;
  ByteOrder order = ByteOrder::kBig;
  // tapdisk 0.1 wrote its own byte order, behind a mark.
  const char32_t first = utf16_unit(bytes, 0, ByteOrder::kBig);
  if (first == kSwappedByteOrderMark) order = ByteOrder::kLittle;
  if (first == kSwappedByteOrderMark || first == kByteOrderMark) bytes = bytes.subspan(2);
  size_t units = 0;
  while (units < bytes.size() / 2 && utf16_unit(bytes, units, order) != 0) ++units;
  return utf16_to_utf8(bytes.first(units * 2), order).value_or("");
}

std::vector<std::string> names_of_file_url(std::string_view url) {
  for (const std::string_view prefix : {"file://localhost/", "file:///"}) {
    if (!url.starts_with(prefix)) continue;
    url.remove_prefix(prefix.size() - 1);  // keeps the slash of the absolute path
    break;
  }
  // tapdisk writes relative paths behind the two slashes.
  if (url.starts_with("file://")) url.remove_prefix(7);
  std::vector<std::string> names;
  for (const std::string& path : {percent_decoded(url), std::string(url)}) {
    if (!path.empty() && is_text(path)) add_names(names, {name_of_windows_path(path)});
  }
  return names;
}

Result<std::vector<std::string>> parent_names(const DynamicHeader& header, const Source& source,
                                              uint64_t data_end,
                                              std::vector<std::string>& warnings) {
  std::vector<std::string> names;
  for (const std::string_view code : {"W2ru", "W2ku", "MacX"}) {
    for (const ParentLocator& locator : header.locators) {
      if (locator.code() != code) continue;
      const auto skip = [&](std::string_view why) {
        warnings.push_back(
            fmt::format("the parent locator {} (data_offset {}, data_length {}) {}; "
                        "it is not used",
                        code, locator.data_offset, locator.data_length, why));
      };
      if (locator.data_length > kMaxLocatorBytes) {
        skip(fmt::format("is longer than {} bytes", kMaxLocatorBytes));
        continue;
      }
      if (!range_within(locator.data_offset, locator.data_length, data_end)) {
        skip("lies beyond the end of the file");
        continue;
      }
      std::vector<std::byte> data(locator.data_length);
      TRY(source.read_at(locator.data_offset, data));
      std::vector<std::string> found = names_of_locator(locator, data);
      if (found.empty() || found.front().empty()) skip("is not a path");
      add_names(names, std::move(found));
    }
  }
  add_names(names, {name_of_windows_path(parent_unicode_name(header))});
  if (names.empty()) {
    return fail(ErrorKind::kMalformed,
                "is a differencing image, but neither a parent locator (W2ru, W2ku, MacX) nor "
                "parent_unicode_name names its parent");
  }
  return names;
}

}  // namespace underlay::vhd
