#include "tools/img/image_files.h"

#include <fcntl.h>

#include <cerrno>
#include <filesystem>

#include "io/file_source.h"
#include "io/http/remote_name.h"
#include "io/image_lock.h"
#include "io/unique_fd.h"

namespace underlay::img {
bool is_file_of(const Disk& disk, const struct stat& status) {
  const FileIdentity asked = identity_of(status);
  for (const Layer& layer : disk.layers()) {
    for (const Source* source : layer.reader->sources()) {
      if (source->file().identity() == asked) return true;
    }
  }
  return false;
}

std::string without_links(const std::string& path) {
  namespace fs = std::filesystem;
  constexpr int kMostLinks = 40;  // Linux's
  std::error_code error;
  if (!fs::is_symlink(path, error)) return path;
  if (fs::exists(path, error)) {
    const fs::path target = fs::canonical(path, error);
    return error ? path : target.string();
  }
  fs::path place = path;
  for (int links = 0; links < kMostLinks && fs::is_symlink(place, error); ++links) {
    place = place.parent_path() / fs::read_symlink(place, error);
  }
  return place.string();
}

Result<void> check_is_no_file_of(const std::string& target, const Source& source) {
  struct stat status;
  const bool is_same = is_remote_name(target) ? may_be_same_object(source.file().name(), target)
                                              : ::stat(target.c_str(), &status) == 0 &&
                                                    source.file().identity() == identity_of(status);
  if (!is_same) return {};
  return in_file(fail(ErrorKind::kUsage,
                      "is a file of the image that is read, and is not replaced: choose another "
                      "name"),
                 shown_name(target));
}

Result<void> check_is_no_file_of(const std::string& target, const Disk& disk) {
  for (const Layer& layer : disk.layers()) {
    for (const Source* source : layer.reader->sources()) {
      TRY(check_is_no_file_of(target, *source));
    }
  }
  return {};
}

Result<void> check_may_be_replaced(const std::string& path, const Disk& source) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) return {};
  TRY(check_is_no_file_of(path, source));
  if (!S_ISREG(status.st_mode)) {
    return in_file(fail(ErrorKind::kUsage, "is no regular file, and is not replaced"), path);
  }
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) {
    return in_file(fail_errno(errno, "cannot find out whether it is in use, and is not replaced"),
                   path);
  }
  return check_unused(file.get(), path);
}

}  // namespace underlay::img
