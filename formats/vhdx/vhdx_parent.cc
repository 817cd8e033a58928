#include "formats/vhdx/vhdx_parent.h"

#include <algorithm>

#include "formats/utf16.h"
#include "formats/windows_path.h"

namespace underlay::vhdx {
namespace {

constexpr std::string_view kLocatorType = "b04aefb7-d19e-4a81-b789-25b8e9445913";
constexpr size_t kKeyValueBytes = 12;

Failure damaged(std::string_view what) {
  return fail(ErrorKind::kMalformed, "its parent locator {}: the image is damaged", what);
}

// The identity that the value of `key` states, "" when there is no such key.
Result<std::string> linkage(const LocatorValues& values, const std::string& key,
                            uint32_t logical_sector_size) {
  const auto found = values.find(key);
  if (found == values.end()) return std::string();
  const auto guid =
      found->second ? parse_guid(*found->second, GuidOrder::kLittleEndian) : std::nullopt;
  if (!guid) return damaged(fmt::format("has a {} that is no GUID", key));
  return identity_of(*guid, logical_sector_size);
}

std::vector<std::string> paths(const LocatorValues& values, std::vector<std::string>& warnings) {
  std::vector<std::string> names;
  for (const std::string_view key : kPathKeys) {
    const auto found = values.find(std::string(key));
    if (found == values.end()) continue;
    const std::string name = found->second ? name_of_windows_path(*found->second) : "";
    if (name.empty()) {
      warnings.push_back(fmt::format("the {} of its parent is not a path; it is not used", key));
    } else if (std::find(names.begin(), names.end(), name) == names.end()) {
      names.push_back(name);
    }
  }
  return names;
}

}  // namespace

std::string identity_of(const Guid& data_write_guid, uint32_t logical_sector_size) {
  return fmt::format("{} with sectors of {} bytes", to_string(data_write_guid),
                     logical_sector_size);
}

Result<LocatorValues> locator_values(ByteSpan locator) {
  const auto count = load_le<uint16_t>(locator, 18);
  if (count > kMaxKeyValues) {
    return fail(ErrorKind::kLimit, "its parent locator has KeyValueCount {}, more than {}", count,
                kMaxKeyValues);
  }
  if (!range_within(kLocatorHeaderBytes, count * kKeyValueBytes, locator.size())) {
    return damaged(fmt::format("has KeyValueCount {}, but only {} bytes", count, locator.size()));
  }
  LocatorValues values;
  for (size_t i = 0; i < count; ++i) {
    const ByteSpan entry = locator.subspan(kLocatorHeaderBytes + i * kKeyValueBytes);
    const auto key_at = load_le<uint32_t>(entry, 0);
    const auto value_at = load_le<uint32_t>(entry, 4);
    const auto key_length = load_le<uint16_t>(entry, 8);
    const auto value_length = load_le<uint16_t>(entry, 10);
    if (!range_within(key_at, key_length, locator.size()) ||
        !range_within(value_at, value_length, locator.size())) {
      return damaged(fmt::format("has key-value pair {} beyond its end", i));
    }
    if (key_length > kMaxValueBytes || value_length > kMaxValueBytes) {
      return fail(ErrorKind::kLimit,
                  "its parent locator has a key of {} and a value of {} bytes, more than {}",
                  key_length, value_length, kMaxValueBytes);
    }
    const auto key = utf16_to_utf8(locator.subspan(key_at, key_length), ByteOrder::kLittle);
    if (!key) return damaged(fmt::format("has key {}, which is no UTF-16", i));
    auto value = utf16_to_utf8(locator.subspan(value_at, value_length), ByteOrder::kLittle);
    if (!values.emplace(*key, std::move(value)).second) {
      return damaged(fmt::format("has the key {} twice", printable(*key, 80)));
    }
  }
  return values;
}

Result<ParentLink> parse_parent_locator(ByteSpan locator, uint32_t logical_sector_size,
                                        std::vector<std::string>& warnings) {
  const std::string type = to_string(guid_at(locator, 0));
  if (type != kLocatorType) {
    return fail(ErrorKind::kUnsupported,
                "its parent locator has the type {}; only VHDX parents ({}) are known", type,
                kLocatorType);
  }
  const LocatorValues values = TRY(locator_values(locator));
  ParentLink link;
  link.format = "vhdx";
  link.identity = TRY(linkage(values, "parent_linkage", logical_sector_size));
  link.other_identity = TRY(linkage(values, "parent_linkage2", logical_sector_size));
  if (link.identity.empty()) return damaged("has no parent_linkage");
  link.names = paths(values, warnings);
  return link;
}

}  // namespace underlay::vhdx
