// Opening files that an image names. Images are not trusted: a name may lead only to a regular file
// beneath the folder of the image that holds it, or beneath a folder that the operator allows.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/image_lock.h"
#include "io/source.h"

namespace underlay {

struct OpenedFile {
  std::shared_ptr<const Source> source;
  // Where it lies, its folder without symbolic links; names in the image start there.
  std::string path;
};

// `path`, which the operator named, with its folder resolved: absolute, no symbolic link in it.
// From here on, a link that somebody plants in the folder's place leads nowhere.
Result<std::string> with_resolved_folder(const std::string& path);

// Who opens the files that an image names. Thread-safe.
class NamedFiles {
 public:
  virtual ~NamedFiles() = default;

  // Opens what `name` means when it stands in the image `namer` (an OpenedFile::path). `name` comes
  // from the image: anything may stand in it.
  virtual Result<OpenedFile> open(const std::string& namer, std::string_view name) const = 0;
};

class Confinement final : public NamedFiles {
 public:
  // `allowed`: folders of the operator's (--allow-path), which may also hold block devices. Fails
  // when one of them does not exist or is no folder. `sharing`: of all files that are opened.
  static Result<Confinement> create(const std::vector<std::string>& allowed,
                                    FileSharing sharing = FileSharing::kNoWriter);
  Confinement() = default;  // only beneath the naming image's folder

  // `name` may be relative or absolute. Where it leads to decides, after all ".." and symbolic
  // links. kDenied (naming --allow-path) outside the allowed folders and for FIFOs, sockets,
  // devices and folders; kNotFound when nothing is there.
  Result<OpenedFile> open(const std::string& namer, std::string_view name) const override;

 private:
  std::vector<std::string> allowed_;  // resolved: absolute, no symbolic link
  FileSharing sharing_ = FileSharing::kNoWriter;
};

// Where a name in an image leads.
struct NamedPlace {
  enum class Kind : uint8_t {
    kMissing,
    kFile,
    kDevice,
    kOther
  };  // kDevice: a block or character device
  Kind kind = Kind::kMissing;
  std::string path;         // without symbolic links; of what is missing, as far as it exists
  bool inside = false;      // the folder of the image that has the name, or beneath it
  uint64_t size = 0;        // kFile: bytes
  FileIdentity identity{};  // unless kMissing
};

// What Confinement::open() of no allowed folder would come to, found without opening anything.
// `namer` as there. kMalformed for what can be no file's name, kIo when the file system does not
// tell. May block.
Result<NamedPlace> locate_named_file(const std::string& namer, std::string_view name);

}  // namespace underlay
