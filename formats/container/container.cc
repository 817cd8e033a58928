#include "formats/container/container.h"

#include <algorithm>
#include <array>

#include "formats/compressed.h"
#include "formats/container/ova.h"
#include "formats/container/tar_layout.h"
#include "formats/format_table.h"
#include "io/window_source.h"

namespace underlay {
namespace {

// A member, and what it is called in messages and as the namer of others.
OpenedFile open_member(const std::shared_ptr<const Source>& archive, const std::string& path,
                       const tar::Member& member) {
  std::string name = path + "#" + member.name;
  auto source = std::make_shared<const WindowSource>(archive, member.offset, member.size, name);
  return {.source = std::move(source), .path = std::move(name)};
}

// "a/b" from the folder of the member `namer`; nullopt when that leads out of the archive.
std::optional<std::string> resolve_name(std::string_view namer, std::string_view name) {
  if (name.empty() || name.front() == '/') return std::nullopt;
  std::vector<std::string_view> parts;
  const auto walk = [&](std::string_view path) {
    while (!path.empty()) {
      const std::string_view part = path.substr(0, path.find('/'));
      path.remove_prefix(std::min(path.size(), part.size() + 1));
      if (part.empty() || part == ".") continue;
      if (part != "..") {
        parts.push_back(part);
      } else if (parts.empty()) {
        return false;
      } else {
        parts.pop_back();
      }
    }
    return true;
  };
  const size_t folder_end = namer.rfind('/');
  if (folder_end != std::string_view::npos && !walk(namer.substr(0, folder_end))) {
    return std::nullopt;
  }
  if (!walk(name)) return std::nullopt;
  std::string joined;
  for (const std::string_view part : parts) {
    if (!joined.empty()) joined += '/';
    joined += part;
  }
  return joined;
}

// The files of an archive, for the images in it.
class FilesInArchive final : public NamedFiles {
 public:
  FilesInArchive(std::shared_ptr<const Source> archive, std::string path,
                 std::vector<tar::Member> members)
      : archive_(std::move(archive)), path_(std::move(path)), members_(std::move(members)) {}

  const std::vector<tar::Member>& members() const { return members_; }

  Result<OpenedFile> open(const std::string& namer, std::string_view name) const override {
    // What names a file is a member, whose path open_member() made; what the operator added to the
    // chain lies outside, and names nothing in here.
    const std::string prefix = path_ + "#";
    if (!namer.starts_with(prefix)) return outside(name);
    const auto resolved = resolve_name(std::string_view(namer).substr(prefix.size()), name);
    if (!resolved) return outside(name);
    return open_member(archive_, path_, TRY(ova::find_member(*archive_, members_, *resolved)));
  }

 private:
  Failure outside(std::string_view name) const {
    return in_file(
        fail(ErrorKind::kDenied, "an image in it names \"{}\", which lies outside the archive",
             printable(name, 200)),
        path_);
  }

  std::shared_ptr<const Source> archive_;
  std::string path_;
  std::vector<tar::Member> members_;
};

Result<std::vector<std::byte>> read_head(const Source& source) {
  std::vector<std::byte> head(
      static_cast<size_t>(std::min<uint64_t>(source.size(), tar::kRecordBytes)));
  TRY(source.read_at(0, head));
  return head;
}

// A file that is whole in one of our formats, or that two of them claim.
Result<bool> is_image(const Source& source) {
  const auto guess = guess_format(source);
  if (!guess) {
    if (guess.error().kind == ErrorKind::kMalformed) return true;
    return Failure(guess.error());
  }
  return guess->format != nullptr;
}

Result<ContainedImage> look_into_archive(const OpenedFile& file, std::string_view member) {
  auto members = TRY(tar::list_members(*file.source));
  const auto files =
      std::make_shared<const FilesInArchive>(file.source, file.path, std::move(members));
  const tar::Member disk = member.empty()
                               ? TRY(ova::choose_disk(*file.source, files->members()))
                               : TRY(ova::find_member(*file.source, files->members(), member));
  ContainedImage image;
  image.file = open_member(file.source, file.path, disk);
  image.files = files;
  for (const tar::Member& each : files->members()) image.members.push_back(each.name);
  return image;
}

}  // namespace

Result<ContainedImage> look_into(OpenedFile file, std::string_view format, std::string_view member,
                                 Caches& caches) {
  ContainedImage image{.file = std::move(file), .files = nullptr};
  // A compressed archive of a compressed image is as deep as it gets.
  for (int depth = 0; depth < 3; ++depth) {
    if (format == kRawFormat && member.empty()) return image;
    const Source& source = *image.file.source;
    const std::vector<std::byte> head = TRY(read_head(source));
    const bool is_archive = image.files == nullptr && tar::is_first_header(head);
    const auto compression = find_compression(head);
    if ((!is_archive && !compression) || TRY(is_image(source))) break;
    if (is_archive) {
      image = TRY(look_into_archive(image.file, member));
      member = "";
    } else {
      image.file.source = TRY(open_compressed(*compression, image.file.source, caches));
    }
  }
  if (member.empty()) return image;
  return in_file(
      fail(ErrorKind::kUsage, "is no tar archive: it has no member \"{}\"", printable(member, 200)),
      image.file.path);
}

std::optional<MemberPath> split_member_path(const std::string& path) {
  const size_t mark = path.rfind('#');
  if (mark == std::string::npos || mark == 0 || mark + 1 == path.size()) return std::nullopt;
  return MemberPath{.file = path.substr(0, mark), .member = path.substr(mark + 1)};
}

}  // namespace underlay
