#include "formats/vhd/vhd_differencing.h"

#include <algorithm>

#include "formats/text_encoding.h"
#include "formats/vhd/vhd_parent.h"
#include "formats/vhd/vhd_structures.h"
#include "io/http/remote_name.h"

namespace underlay::vhd {
namespace {

// A path in UTF-16 must fit, too: kMaxLocatorBytes.
constexpr size_t kMaxPathBytes = kMaxLocatorBytes / 2;

// Of a locator's data, in bytes: so do tapdisk and Windows state it.
uint32_t space_of(size_t length) {
  return static_cast<uint32_t>(div_round_up(length, kSectorBytes) * kSectorBytes);
}

Result<void> check_name(const std::string& name) {
  const auto refuse = [&](std::string_view why) {
    return fail(ErrorKind::kUsage, "the parent's name \"{}\" {}", printable(shown_name(name), 200),
                why);
  };
  if (name.empty() || name.ends_with('/')) return refuse("is no file's name");
  if (name.find('\0') != std::string::npos) return refuse("has a NUL");
  if (name.find("://") != std::string::npos) {
    return refuse("is a URL, and a vhd has a path: give its name beside the image");
  }
  if (name.find('\\') != std::string::npos) {
    return refuse("has a backslash, which in a vhd separates folders: rename it");
  }
  if (name.size() > kMaxPathBytes) {
    return refuse(
        fmt::format("has {} bytes, at most {} are held: give it as a path from the image's "
                    "folder",
                    name.size(), kMaxPathBytes));
  }
  return {};
}

Result<std::vector<std::byte>> in_utf16(const std::string& name, ByteOrder order) {
  auto text = utf8_to_utf16(name, order);
  if (text) return text;
  return fail(ErrorKind::kUsage, "the parent's name {}: rename it", text.error().message);
}

Result<ParentIdentity> identity_of(const Source& source, std::string name) {
  const Structures found = TRY(read_structures(source, ImageOptions::VhdSize::kByCreator));
  TRY(found.defects.refusal());
  const Footer& footer = found.found.footer;
  if (is_null(footer.unique_id)) {
    return fail(ErrorKind::kUnsupported,
                "has no unique_id, by which a child knows its parent: convert it first");
  }
  const FooterDetails details = TRY(read_footer_details(source, found.found.at));
  return ParentIdentity{.name = std::move(name),
                        .unique_id = footer.unique_id,
                        .time_stamp = details.time_stamp,
                        .size = found.size.bytes};
}

}  // namespace

Result<ParentIdentity> identify_parent(const Source& source, std::string name) {
  auto identity = identity_of(source, std::move(name));
  if (!identity) return in_file(std::move(identity).error(), source.name());
  return identity;
}

Result<ParentLocators> ParentLocators::of(const std::string& name) {
  TRY(check_name(name));
  ParentLocators parent;
  parent.unicode_name_ = TRY(in_utf16(name.substr(name.rfind('/') + 1), ByteOrder::kBig));
  if (parent.unicode_name_.size() > kParentNameBytes) {
    return fail(ErrorKind::kUsage,
                "the parent's file name \"{}\" has {} UTF-16 units, a vhd holds {}: rename it",
                printable(name, 200), parent.unicode_name_.size() / 2, kParentNameBytes / 2);
  }
  const bool is_relative = !name.starts_with('/');
  if (is_relative) {
    std::string path = ".\\" + name;
    std::ranges::replace(path, '/', '\\');
    parent.add(kRelativeLocator, TRY(in_utf16(path, ByteOrder::kLittle)));
  }
  // tapdisk decodes no %XX (RFC 3986, 2.1): as it is.
  parent.add(kFileUrlLocator, as_bytes((is_relative ? "file://./" : "file://") + name));
  return parent;
}

void ParentLocators::add(std::string_view code, ByteSpan text) {
  const size_t at = data_.size();
  locators_.push_back({.code = code, .at = at, .length = static_cast<uint32_t>(text.size())});
  data_.insert(data_.end(), text.begin(), text.end());
  data_.resize(at + space_of(text.size()));
}

void ParentLocators::put(const ParentIdentity& parent, uint64_t data_offset,
                         MutableByteSpan header) const {
  std::ranges::copy(parent.unique_id, header.subspan(kParentIdAt).begin());
  store_be<uint32_t>(header, kParentTimeStampAt, parent.time_stamp);
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

}  // namespace underlay::vhd
