// Files that hold an image: a tar archive (OVA), from which a member is served as it lies there;
// an image that was compressed whole.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/block_cache.h"
#include "io/confined_open.h"

namespace underlay {

// The image within a file, or the file itself when it is no container.
struct ContainedImage {
  OpenedFile file;
  // Where the files that the image names lie: only in the same archive. Null: where they always do.
  std::shared_ptr<const NamedFiles> files;
  std::vector<std::string> members{};  // of that archive: all its files, as it names them
};

// Looks through the containers around the image in `file`. A file that one of our formats claims is
// none; nor is any when `format` (-f) is raw. `member`: of the archive that `file` must be then;
// "": its only disk. `caches` outlives what is returned. May block.
//
// An image that was compressed whole is refused with the command that unpacks it, unless it is in a
// form that can be read from anywhere: xz in several blocks, the seekable format of zstd.
Result<ContainedImage> look_into(OpenedFile file, std::string_view format, std::string_view member,
                                 Caches& caches);

// FILE#MEMBER as the two, at the last "#"; nullopt when there is none.
struct MemberPath {
  std::string file;
  std::string member;
};
std::optional<MemberPath> split_member_path(const std::string& path);

}  // namespace underlay
