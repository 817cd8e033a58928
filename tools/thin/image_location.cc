#include "tools/thin/image_location.h"

#include <filesystem>

#include "formats/container/container.h"
#include "io/confined_open.h"

namespace underlay::thin {

ImageLocation image_location(const std::string& text) {
  std::error_code error;
  if (!std::filesystem::exists(text, error)) {
    if (auto split = split_member_path(text)) {
      return {.file = std::move(split->file), .member = std::move(split->member)};
    }
  }
  return {.file = text, .member = ""};
}

Result<std::string> with_resolved_file(const std::string& text) {
  ImageLocation location = image_location(text);
  location.file = TRY(with_resolved_folder(location.file));
  return location.text();
}

}  // namespace underlay::thin
