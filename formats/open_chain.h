// Opening an image and its parents as one disk.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/disk.h"
#include "io/confined_open.h"

namespace underlay {

// Who reads the images.
enum class ReaderChoice : uint8_t {
  kOwn,
  kLibyal,  // libqcow, libvhdi: formats without Format::open_by_library are refused
};

// The operator's word on where an image's parent lies (--parent).
struct ParentPath {
  std::string child;  // the image's path, or its file name alone
  std::string path;   // the parent's: trusted, so not confined
};

struct OpenOptions {
  std::string format;  // of the top image; "" = guess
  // Of its parent, when the image does not state one; "" = see open_disk.
  std::string backing_format;
  uint64_t start = 0;  // where the disk begins in the image, bytes (-o)
  ImageOptions image;
  ReaderChoice reader = ReaderChoice::kOwn;
  std::vector<ParentPath> parents{};
  ImageOptions backing{};  // of its parent: only what is about encryption counts
};

struct OpenedDisk {
  std::shared_ptr<const Disk> disk;
  std::vector<std::string> warnings;  // one line each, with the path
};

// Opens the image `path` and all its parents. May block. Looks through containers (container.h); a
// path FILE#MEMBER, when no file is called so, means the member of the archive. `files` is used
// during the call only; `caches` outlives the disk.
//
// The format of the top image is guessed when not given; raw with a warning, and not at all when
// the file shows signs of another format. A parent's format is what the child states. When it
// states none, it is guessed, but neither raw nor an image that names further files is accepted
// that way: a guest may have written such a header into a raw disk.
//
// kNotFound: `path` itself, or the snapshot that was asked for, is not there. A missing file that
// an image names is another error.
Result<OpenedDisk> open_disk(const std::string& path, const OpenOptions& options,
                             const NamedFiles& files, Caches& caches);

// The same of a file that is open already.
Result<OpenedDisk> open_disk(OpenedFile top, const OpenOptions& options, const NamedFiles& files,
                             Caches& caches);

inline constexpr size_t kMaxChainDepth = 256;  // images; longer chains are refused

}  // namespace underlay
