#include "tools/thin/image_location.h"

#include <filesystem>

#include "formats/container/container.h"
#include "io/confined_open.h"
#include "io/http/remote_name.h"

namespace underlay::thin {

ImageLocation image_location(const std::string& text) {
  std::error_code error;
  // A key may hold any letter; of a URL what stands behind '#' is no part.
  if (is_s3_name(text)) return {.file = text, .member = ""};
  if (is_remote_name(text) || !std::filesystem::exists(text, error)) {
    if (auto split = split_member_path(text)) {
      return {.file = std::move(split->file), .member = std::move(split->member)};
    }
  }
  return {.file = text, .member = ""};
}

Result<std::string> with_resolved_file(const std::string& text) {
  ImageLocation location = image_location(text);
  if (!is_remote_name(location.file)) location.file = TRY(with_resolved_folder(location.file));
  return location.text();
}

}  // namespace underlay::thin
