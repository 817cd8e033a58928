#include "tools/img/shown_names.h"

#include "io/confined_open.h"

namespace underlay::img {

ShownNames::ShownNames(const std::string& image) : given_(image.substr(0, image.rfind('/') + 1)) {
  if (const auto resolved = with_resolved_folder(image)) {
    resolved_ = resolved->substr(0, resolved->rfind('/') + 1);
  }
}

std::string ShownNames::of(std::string_view file) const {
  if (resolved_.empty() || !file.starts_with(resolved_)) return std::string(file);
  return given_ + std::string(file.substr(resolved_.size()));
}

}  // namespace underlay::img
