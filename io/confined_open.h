// Opening files that images name, who are not trusted: a name may lead only to a regular file beneath
// the image's folder, or one that the operator allows; on a server (http/remote_name.h) to one there.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/image_lock.h"
#include "io/source.h"

namespace underlay {

class RemoteCache;

struct OpenedFile {
  std::shared_ptr<const Source> source;
  // Its folder without symbolic links, where names in the image start; or its shown_name().
  std::string path;
};

// `path`, which the operator named, with its folder resolved: absolute, no symbolic link in it, so
// that one which somebody plants there later leads nowhere. Of a remote name its shown_name().
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
  // `allowed`: folders of the operator's (--allow-path), which may also hold block devices, or
  // URLs. Fails when a folder does not exist or is none. `sharing`: of all local files that are
  // opened; those on servers are read through `cache`, if there is one.
  static Result<Confinement> create(const std::vector<std::string>& allowed,
                                    FileSharing sharing = FileSharing::kNoWriter,
                                    std::shared_ptr<RemoteCache> cache = nullptr);
  Confinement() = default;  // only beneath the naming image's folder

  // `name` may be relative or absolute. Where it leads to decides, after all ".." and symbolic
  // links. kDenied (naming --allow-path) outside the allowed folders and for FIFOs, sockets,
  // devices and folders; kNotFound when nothing is there.
  Result<OpenedFile> open(const std::string& namer, std::string_view name) const override;

 private:
  std::vector<std::string> allowed_;  // absolute, no symbolic link; or a remote_folder()
  FileSharing sharing_ = FileSharing::kNoWriter;
  std::shared_ptr<RemoteCache> cache_;
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

// What Confinement::open() of no allowed folder would come to. No file is opened; servers are
// asked. `namer` as there. kMalformed for what can be no file's name, kIo when the file system does
// not tell. May block.
Result<NamedPlace> locate_named_file(const std::string& namer, std::string_view name);

}  // namespace underlay
