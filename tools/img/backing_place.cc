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
  // Nothing is there yet, but there may be links on the way.
  std::error_code error;
  const auto place = [&](const std::string& path) {
    const auto absolute = std::filesystem::absolute(without_links(path), error);
    return error ? absolute : std::filesystem::weakly_canonical(absolute, error);
  };
  const auto first = place(one);
  return !error && first == place(other) && !error;
}

}  // namespace

Result<std::string> backing_place(const std::string& target, const std::string& backing,
                                  const std::vector<std::string>& allowed) {
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
  std::vector<std::string> folders;
  for (const std::string& folder : allowed) {
    if (is_remote_name(folder)) folders.push_back(TRY(remote_folder(folder)));
  }
  auto beside = name_beside(shown, backing, folders);
  if (!beside) return with_context(std::move(beside).error(), "-B: ");
  return beside;
}

Result<void> check_backing_is_kept(const std::string& target, const std::string& place) {
  const bool is_same =
      is_remote_name(target) ? may_be_same_object(place, target) : is_same_file(place, target);
  if (!is_same) return {};
  return fail(ErrorKind::kUsage, "-B: {} is the target itself: choose another name for that",
              printable(shown_name(place), 200));
}

}  // namespace underlay::img
