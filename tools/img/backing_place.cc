#include "tools/img/backing_place.h"

#include <sys/stat.h>

#include <filesystem>

#include "io/file_source.h"
#include "io/http/remote_name.h"
#include "tools/img/image_files.h"

namespace underlay::img {
namespace {

bool is_same_file(const std::string& one, const std::string& other) {
  struct stat a, b;
  if (::stat(one.c_str(), &a) == 0 && ::stat(other.c_str(), &b) == 0) {
    return identity_of(a) == identity_of(b);
  }
  std::error_code error;
  const auto absolute = [&](const std::string& path) {
    return std::filesystem::absolute(path, error).lexically_normal();
  };
  return absolute(one) == absolute(other);
}

}  // namespace

Result<std::string> backing_place(const std::string& target, const std::string& backing) {
  if (!is_remote_name(target)) {
    return (std::filesystem::path(without_links(target)).parent_path() / backing).string();
  }
  const std::string shown = shown_name(target);
  if (backing.starts_with('/')) {
    return in_file(fail(ErrorKind::kDenied,
                        "-B: \"{}\" is an absolute path, which an image on a server cannot follow: "
                        "name what lies beside it there",
                        printable(backing, 200)),
                   shown);
  }
  auto beside = name_beside(shown, backing, {});
  if (!beside) return with_context(std::move(beside).error(), "-B: ");
  return beside;
}

Result<void> check_backing_is_kept(const std::string& target, const std::string& backing) {
  const auto place = backing_place(target, backing);
  if (!place) return {};  // nor is it the target
  if (is_remote_name(target) ? *place != shown_name(target) : !is_same_file(*place, target)) {
    return {};
  }
  return fail(ErrorKind::kUsage, "-B: \"{}\" is the target itself: choose another name for that",
              printable(shown_name(backing), 200));
}

}  // namespace underlay::img
