#include "formats/vhd/vhd_overlay.h"

#include <algorithm>

#include "formats/text_encoding.h"
#include "formats/vhd/vhd_parent.h"
#include "formats/vhd/vhd_structures.h"

namespace underlay {

Result<VhdParent> vhd_parent(const Source& source, std::string name) {
  const vhd::Structures found =
      TRY(vhd::read_structures(source, ImageOptions::VhdSize::kByCreator));
  TRY(found.defects.refusal());
  const vhd::FoundFooter& footer = found.found;
  std::array<std::byte, vhd::kShortFooterBytes> bytes;
  TRY(source.read_at(footer.at, bytes));
  if (is_null(footer.footer.unique_id)) {
    return in_file(fail(ErrorKind::kUnsupported,
                        "has no unique_id, by which an overlay knows its parent: convert it"),
                   source.name());
  }
  return VhdParent{.name = std::move(name),
                   .unique_id = footer.footer.unique_id,
                   .time_stamp = vhd::footer_details(bytes).time_stamp,
                   .size = found.size.bytes};
}

namespace vhd {
namespace {

constexpr size_t kParentIdAt = 40;
constexpr size_t kParentTimeAt = 56;
constexpr size_t kParentNameAt = 64;
constexpr size_t kLocatorsAt = 576;
constexpr size_t kLocatorBytes = 24;

// Of a locator's data, as bytes: so do tapdisk and Windows state it.
uint32_t space_of(size_t length) {
  return static_cast<uint32_t>(div_round_up(length, kSectorBytes) * kSectorBytes);
}

Result<void> check_name(const std::string& name) {
  const auto refuse = [&](std::string_view why) {
    return fail(ErrorKind::kUsage, "-B: \"{}\" {}", printable(name, 200), why);
  };
  if (name.empty() || name.ends_with('/')) return refuse("is no file's name");
  if (name.find('\0') != std::string::npos) return refuse("has a NUL");
  if (name.find("://") != std::string::npos) {
    return refuse("is a URL, and a vhd names its parent by a path: give its name beside the image");
  }
  if (name.find('\\') != std::string::npos) {
    return refuse("has a backslash, which in a vhd separates folders");
  }
  return {};
}

}  // namespace

Result<ParentNames> ParentNames::of(const std::string& name) {
  TRY(check_name(name));
  ParentNames names;
  names.unicode_name_ = TRY(utf16_of(name.substr(name.rfind('/') + 1), ByteOrder::kBig));
  const bool is_relative = !name.starts_with('/');
  const std::string url = (is_relative ? "file://./" : "file://") + name;
  if (names.unicode_name_.size() > kParentNameBytes || url.size() > kMaxLocatorBytes / 2) {
    return fail(
        ErrorKind::kUsage,
        "-B: the name has {} bytes: a vhd holds {} characters of a file's name, and {} bytes "
        "of a path",
        name.size(), kParentNameBytes / 2, kMaxLocatorBytes / 2);
  }
  if (is_relative) {
    std::string path = ".\\" + name;
    std::ranges::replace(path, '/', '\\');
    names.add("W2ru", TRY(utf16_of(path, ByteOrder::kLittle)));
  }
  names.add("MacX", as_bytes(url));
  return names;
}

void ParentNames::add(std::string_view code, ByteSpan text) {
  locators_.push_back(
      {.code = code, .at = data_.size(), .length = static_cast<uint32_t>(text.size())});
  data_.insert(data_.end(), text.begin(), text.end());
  data_.resize(locators_.back().at + space_of(text.size()));
}

void ParentNames::put(const VhdParent& parent, uint64_t data_offset, MutableByteSpan header) const {
  std::ranges::copy(parent.unique_id, header.subspan(kParentIdAt).begin());
  store_be<uint32_t>(header, kParentTimeAt, parent.time_stamp);
  std::ranges::copy(unicode_name_, header.subspan(kParentNameAt).begin());
  size_t at = kLocatorsAt;
  for (const Locator& locator : locators_) {
    std::ranges::copy(as_bytes(locator.code), header.subspan(at).begin());
    store_be<uint32_t>(header, at + 4, space_of(locator.length));
    store_be<uint32_t>(header, at + 8, locator.length);
    store_be<uint64_t>(header, at + 16, data_offset + locator.at);
    at += kLocatorBytes;
  }
}

}  // namespace vhd
}  // namespace underlay
