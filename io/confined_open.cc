#include "io/confined_open.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <filesystem>

#include "io/file_source.h"
#include "io/http/http_source.h"
#include "io/http/remote_name.h"
#include "io/open_source.h"
#include "io/unique_fd.h"

namespace underlay {
namespace {

namespace fs = std::filesystem;

Result<std::string> resolve(const std::string& path) {
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr) {
    Error error = fail_errno(errno, "cannot resolve").value();
    if (error.sys_errno == ENOENT || error.sys_errno == ENOTDIR) error.kind = ErrorKind::kNotFound;
    return in_file(std::move(error), path);
  }
  return std::string(resolved);
}

// What of `path` lies below `folder`, both resolved; "" when it does not.
std::string below(const std::string& path, const std::string& folder) {
  const std::string prefix = folder.ends_with('/') ? folder : folder + '/';
  return path.size() > prefix.size() && path.starts_with(prefix) ? path.substr(prefix.size()) : "";
}

// Opens folder/rest in a way that a symbolic link planted after resolve() cannot divert: neither in
// `folder`, which was resolved before as well, nor below it.
Result<UniqueFd> open_beneath(const std::string& folder, const std::string& rest) {
  open_how folder_how{};
  folder_how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  folder_how.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const UniqueFd directory(static_cast<int>(
      ::syscall(SYS_openat2, AT_FDCWD, folder.c_str(), &folder_how, sizeof(folder_how))));
  if (!directory.valid()) return fail_errno(errno, "cannot open the folder {}", folder);
  open_how how{};
  // O_NONBLOCK: opening a FIFO must not wait for its writer.
  how.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const long fd = ::syscall(SYS_openat2, directory.get(), rest.c_str(), &how, sizeof(how));
  if (fd < 0) {
    // A socket (ENXIO) or a device without driver is no file to serve either.
    return fail_errno(errno, "cannot open");
  }
  return UniqueFd(static_cast<int>(fd));
}

bool is_kind(const UniqueFd& fd, bool devices_too) {
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) return false;
  return S_ISREG(status.st_mode) || (devices_too && S_ISBLK(status.st_mode));
}

Result<void> check_file_name(const std::string& namer, std::string_view name) {
  if (!name.empty() && name.size() < PATH_MAX && name.find('\0') == std::string_view::npos) {
    return {};
  }
  return in_file(
      fail(ErrorKind::kMalformed, "names the file \"{}\": a file name has 1 to {} bytes and no NUL",
           printable(name, 80), PATH_MAX - 1),
      namer);
}

// `path` without symbolic links, as far as it exists. The target of a link that leads to nothing
// counts, too.
fs::path resolve_as_far_as_possible(fs::path path) {
  constexpr int kMaxLinks = 40;  // as the kernel's
  std::error_code error;
  for (int links = 0; links < kMaxLinks; ++links) {
    const fs::path resolved = fs::weakly_canonical(path, error);
    if (error) return path;
    const fs::path target = fs::read_symlink(resolved, error);
    if (error) return resolved;  // no link
    path = resolved.parent_path() / target;
  }
  return path;
}

Result<NamedPlace> locate_remote(const std::string& namer, std::string_view name) {
  NamedPlace place{.path = std::string(name)};
  const auto beside = name_beside(namer, name, {});
  if (!beside && beside.error().kind != ErrorKind::kDenied) return Failure(beside.error());
  if (!beside) return place;
  place.path = *beside;
  place.inside = true;
  const auto source = open_http_source(*beside);
  if (!source && source.error().kind == ErrorKind::kNotFound) return place;
  if (!source) return Failure(source.error());
  place.kind = NamedPlace::Kind::kFile;
  place.size = (*source)->size();
  place.identity = (*source)->identity().value_or(FileIdentity{});
  return place;
}

}  // namespace

Result<std::string> with_resolved_folder(const std::string& path) {
  if (is_remote_name(path)) return shown_name(path);
  const fs::path given(path);
  const fs::path folder = given.has_parent_path() ? given.parent_path() : fs::path(".");
  return (fs::path(TRY(resolve(folder.string()))) / given.filename()).string();
}

Result<Confinement> Confinement::create(const std::vector<std::string>& allowed,
                                        FileSharing sharing, std::shared_ptr<RemoteCache> cache) {
  Confinement confinement;
  confinement.sharing_ = sharing;
  confinement.cache_ = std::move(cache);
  for (const std::string& folder : allowed) {
    if (is_remote_name(folder)) {
      auto remote = remote_folder(folder);
      if (!remote) return with_context(std::move(remote).error(), "--allow-path: ");
      confinement.allowed_.push_back(*std::move(remote));
      continue;
    }
    auto resolved = resolve(folder);
    if (!resolved) return with_context(std::move(resolved).error(), "--allow-path: ");
    std::error_code error;
    if (!fs::is_directory(*resolved, error)) {
      return in_file(fail(ErrorKind::kUsage, "--allow-path must name a folder"), folder);
    }
    confinement.allowed_.push_back(*std::move(resolved));
  }
  return confinement;
}

Result<OpenedFile> Confinement::open(const std::string& namer, std::string_view name) const {
  if (is_remote_name(namer)) {
    OpenedFile file;
    file.path = TRY(name_beside(namer, name, allowed_));
    file.source = TRY(open_source(file.path, sharing_, cache_.get()));
    return file;
  }
  TRY(check_file_name(namer, name));
  const std::string home = fs::path(namer).parent_path().string();
  const std::string path = (fs::path(home) / fs::path(name)).string();
  auto resolved = resolve(path);
  if (!resolved) {
    resolved.error().file = namer;
    return with_context(std::move(resolved).error(),
                        fmt::format("names the file \"{}\": ", printable(name)));
  }

  const auto denied = [&](std::string_view why) {
    return in_file(fail(ErrorKind::kDenied,
                        "names the file \"{}\", which {}; --allow-path DIR allows what lies "
                        "beneath DIR",
                        printable(name), why),
                   namer);
  };
  std::string root = home;
  bool devices_too = false;
  std::string rest = below(*resolved, home);
  for (const std::string& allowed : allowed_) {
    const std::string under_allowed = below(*resolved, allowed);
    if (under_allowed.empty()) continue;
    root = allowed;
    rest = under_allowed;
    devices_too = true;
    break;
  }
  if (rest.empty()) return denied("leads out of the image's folder");

  auto fd = open_beneath(root, rest);
  if (!fd) {
    const int error = fd.error().sys_errno;
    if (error == ENXIO || error == ENODEV) return denied("is no regular file");
    if (error == ELOOP || error == EXDEV) return denied("leads out of the image's folder");
    return with_context(in_file(std::move(fd).error(), namer),
                        fmt::format("names the file \"{}\": ", printable(name)));
  }
  if (!is_kind(*fd, devices_too)) return denied("is no regular file");
  // A link to the image counts as the image, as for qemu: its names start in the link's folder, if
  // that one is allowed as well.
  const std::string named = TRY(with_resolved_folder(path));
  const std::string& shown = below(named, root).empty() ? *resolved : named;
  return OpenedFile{.source = TRY(file_source_of(*std::move(fd), shown, sharing_)), .path = shown};
}

Result<NamedPlace> locate_named_file(const std::string& namer, std::string_view name) {
  if (is_remote_name(namer)) return locate_remote(namer, name);
  TRY(check_file_name(namer, name));
  const fs::path home = fs::path(namer).parent_path();
  NamedPlace place;
  place.path = resolve_as_far_as_possible(home / fs::path(name)).string();
  place.inside = place.path == home.string() || !below(place.path, home.string()).empty();
  struct stat status;
  if (::stat(place.path.c_str(), &status) != 0) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR || error == ELOOP || error == ENAMETOOLONG)
      return place;
    return in_file(fail_errno(error, "names the file \"{}\"", printable(name)), namer);
  }
  place.identity = {.device = status.st_dev, .inode = status.st_ino};
  place.kind = NamedPlace::Kind::kOther;
  if (S_ISREG(status.st_mode)) {
    place.kind = NamedPlace::Kind::kFile;
    place.size = static_cast<uint64_t>(status.st_size);
  } else if (S_ISBLK(status.st_mode) || S_ISCHR(status.st_mode)) {
    place.kind = NamedPlace::Kind::kDevice;
  }
  return place;
}

}  // namespace underlay
