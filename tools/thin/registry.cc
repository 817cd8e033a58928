#include "tools/thin/registry.h"

#include <algorithm>

namespace underlay::thin {
namespace {

template <class List>
auto find_named(List& list, const std::string& name) -> decltype(list.data()) {
  const auto found =
      std::find_if(list.begin(), list.end(), [&](const auto& entry) { return entry.name == name; });
  return found == list.end() ? nullptr : &*found;
}

template <class List>
auto find_id(List& list, const std::string& id) -> decltype(list.data()) {
  const auto found =
      std::find_if(list.begin(), list.end(), [&](const auto& entry) { return entry.id == id; });
  return found == list.end() ? nullptr : &*found;
}

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' ||
         c == '_' || c == '.' || c == '-';
}

}  // namespace

const PoolRecord* Registry::pool(const std::string& name) const { return find_named(pools, name); }
const ImageRecord* Registry::image(const std::string& id) const { return find_id(images, id); }
const VolumeRecord* Registry::volume(const std::string& name) const {
  return find_named(volumes, name);
}
PoolRecord* Registry::pool(const std::string& name) { return find_named(pools, name); }
ImageRecord* Registry::image(const std::string& id) { return find_id(images, id); }
VolumeRecord* Registry::volume(const std::string& name) { return find_named(volumes, name); }

bool is_pending(const Registry& registry, const VolumeRecord& volume) {
  const PoolRecord* const pool = registry.pool(volume.pool);
  return pool != nullptr && pool->pending && pool->pending->volume == volume.name;
}

const char* name_of(DirectMode mode) {
  switch (mode) {
    case DirectMode::kAuto:
      return "auto";
    case DirectMode::kAlways:
      return "always";
    case DirectMode::kNever:
      return "never";
  }
  return "";
}

const char* name_of(Discards discards) {
  return discards == Discards::kIgnore ? "ignore" : "unmap";
}

bool has_volumes(const Registry& registry, const std::string& image_id) {
  return std::any_of(registry.volumes.begin(), registry.volumes.end(),
                     [&](const VolumeRecord& volume) { return volume.image == image_id; });
}

bool is_image_id(const std::string& text) {
  return text.size() == 8 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

Result<void> check_name(const std::string& name, const char* what) {
  constexpr size_t kMaxLength = 100;
  if (name.empty() || name.size() > kMaxLength ||
      !std::all_of(name.begin(), name.end(), is_name_character) || name[0] == '-' ||
      name[0] == '.') {
    return fail(ErrorKind::kUsage,
                "'{}' cannot name a {}: use 1 to {} letters, digits and '+_.-', not beginning with "
                "'-' or '.'",
                printable(name, 120), what, kMaxLength);
  }
  if (name.starts_with("underlay-") || name == "control") {
    return fail(ErrorKind::kUsage, "'{}' cannot name a {}: /dev/mapper/{} has another use", name,
                what, name);
  }
  return {};
}

}  // namespace underlay::thin
