#include "formats/vhd/vhd_parent.h"

#include <algorithm>
#include <array>

#include "formats/utf16.h"
#include "formats/windows_path.h"
#include "io/percent_encoding.h"

namespace underlay::vhd {
namespace {

constexpr char32_t kByteOrderMark = 0xfeff;
constexpr char32_t kSwappedByteOrderMark = 0xfffe;

bool is_text(std::string_view name) { return name.find('\0') == std::string_view::npos; }

constexpr std::string_view kOldRelative = "Wi2r";  // both old codes are deprecated
constexpr std::string_view kAbsolute = "W2ku";
constexpr std::string_view kOldAbsolute = "Wi2k";
constexpr std::string_view kAlias = "Mac ";
constexpr std::array kNaming = {kRelativeLocator, kOldRelative, kAbsolute, kOldAbsolute,
                                kFileUrlLocator};

std::string_view without_nuls_behind(std::string_view text) {
  while (text.ends_with('\0')) text.remove_suffix(1);
  return text;
}

// One locator's data as UTF-8, "" when it is no text.
std::string text_of(const ParentLocator& locator, ByteSpan data) {
  const std::string_view text = without_nuls_behind(as_text(data));
  if (locator.code() == kAlias) return "";
  if (locator.code() == kFileUrlLocator) return std::string(text);
  // The specification does not say how the deprecated codes' paths are encoded: 8-bit text has no
  // NULs, UTF-16 mostly has. The same goes for codes that are unknown.
  const bool is_utf16 = locator.code() == kRelativeLocator || locator.code() == kAbsolute;
  if (!is_utf16 && is_text(text)) return std::string(text);
  return utf16_to_utf8(data, ByteOrder::kLittle).value_or("");
}

// Why a locator does not count, "" when it does.
std::string defect_of(const ParentLocator& locator, uint64_t data_end) {
  if (locator.code() == kAlias) return "is an alias of Mac OS, which no other system can follow";
  if (std::find(kNaming.begin(), kNaming.end(), locator.code()) == kNaming.end()) {
    return "has an unknown platform code";
  }
  if (locator.data_length > kMaxLocatorBytes) {
    return fmt::format("is longer than {} bytes", kMaxLocatorBytes);
  }
  // Some writers leave data_space 0.
  if (locator.data_space != 0 && locator.data_length > locator.space_bytes()) {
    return fmt::format("is longer than its data_space {}", locator.data_space);
  }
  if (!range_within(locator.data_offset, locator.data_length, data_end)) {
    return "lies beyond the end of the file";
  }
  return "";
}

// Collects names, each once.
void add_names(std::vector<std::string>& names, std::vector<std::string> more) {
  for (std::string& name : more) {
    if (name.empty() || std::find(names.begin(), names.end(), name) != names.end()) continue;
    names.push_back(std::move(name));
  }
}

}  // namespace

std::string parent_unicode_name(const DynamicHeader& header, ByteOrder unmarked) {
  ByteSpan bytes = header.parent_unicode_name;
  ByteOrder order = unmarked;
  // tapdisk 0.1 wrote its own byte order, behind a mark.
  const char32_t first = utf16_unit(bytes, 0, ByteOrder::kBig);
  if (first == kSwappedByteOrderMark) order = ByteOrder::kLittle;
  if (first == kByteOrderMark) order = ByteOrder::kBig;
  if (first == kSwappedByteOrderMark || first == kByteOrderMark) bytes = bytes.subspan(2);
  return utf16_field(bytes, order);
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
  for (const std::string& path : {std::string(url), percent_decoded(url)}) {
    if (!path.empty() && is_text(path)) add_names(names, {name_of_windows_path(path)});
  }
  return names;
}

std::vector<std::string> names_of_locator(const ReadLocator& locator) {
  std::vector<std::string> names;
  if (locator.locator.code() == kFileUrlLocator) return names_of_file_url(locator.text);
  add_names(names, {name_of_windows_path(locator.text)});
  return names;
}

Result<std::vector<ReadLocator>> read_locators(const DynamicHeader& header, const Source& source,
                                               uint64_t data_end) {
  std::vector<ReadLocator> all;
  for (const ParentLocator& locator : header.locators) {
    if (!locator.is_used()) continue;
    ReadLocator read{.locator = locator, .defect = defect_of(locator, data_end), .text = {}};
    if (locator.data_length <= kMaxLocatorBytes &&
        range_within(locator.data_offset, locator.data_length, data_end)) {
      std::vector<std::byte> data(locator.data_length);
      TRY(source.read_at(locator.data_offset, data));
      read.text = text_of(locator, data);
    }
    all.push_back(std::move(read));
  }
  return all;
}

std::vector<std::string> parent_names(const DynamicHeader& header,
                                      const std::vector<ReadLocator>& locators, ByteOrder unmarked,
                                      std::vector<std::string>& warnings) {
  std::array<std::vector<std::string>, kNaming.size()> by_code;
  for (const ReadLocator& read : locators) {
    const ParentLocator& locator = read.locator;
    const auto skip = [&](std::string_view why) {
      warnings.push_back(fmt::format(
          "the parent locator \"{}\" (data_offset {}, data_length {}) {}; it is not used",
          printable(locator.code()), locator.data_offset, locator.data_length, why));
    };
    if (!read.defect.empty()) {
      skip(read.defect);
      continue;
    }
    std::vector<std::string> found = names_of_locator(read);
    if (found.empty()) skip("is not a path");
    const auto code = std::find(kNaming.begin(), kNaming.end(), locator.code()) - kNaming.begin();
    add_names(by_code[static_cast<size_t>(code)], std::move(found));
  }
  std::vector<std::string> names;
  for (std::vector<std::string>& found : by_code) add_names(names, std::move(found));
  add_names(names, {name_of_windows_path(parent_unicode_name(header, unmarked))});
  return names;
}

}  // namespace underlay::vhd
