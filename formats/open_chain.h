// Opening an image and its parents as one disk.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "formats/container/container.h"
#include "formats/disk.h"
#include "formats/format_table.h"
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
  FileSharing sharing = FileSharing::kNoWriter;  // of files that the operator names
};

struct OpenedDisk {
  std::shared_ptr<const Disk> disk;
  std::vector<std::string> warnings;  // one line each, with the path
};

// An image of a chain, whose file is open already.
struct ChainImage {
  const OpenedFile& file;
  const Format& format;
  const ImageOptions& options;
};
// Sees each image before it is opened as one of its format, from the top one on. An error ends the
// opening.
using ChainVisitor = std::function<Result<void>(const ChainImage&)>;

// Opens the image `path`, as open_source() takes it, and all its parents. May block. Looks through
// containers (container.h); a path FILE#MEMBER, when no file is called so, means the member of the
// archive. `files` is used during the call only; `caches` outlives the disk.
//
// The format of the top image is guessed when not given; raw with a warning, and not at all when
// the file shows signs of another format. A parent's format is what the child states. When it
// states none, it is guessed, but neither raw nor an image that names further files is accepted
// that way: a guest may have written such a header into a raw disk.
//
// kNotFound: `path` itself, or the snapshot that was asked for, is not there. A missing file that
// an image names is another error.
Result<OpenedDisk> open_disk(const std::string& path, const OpenOptions& options,
                             const NamedFiles& files, Caches& caches,
                             const ChainVisitor& visit = nullptr);

// The same of a file that is open already.
Result<OpenedDisk> open_disk(OpenedFile top, const OpenOptions& options, const NamedFiles& files,
                             Caches& caches, const ChainVisitor& visit = nullptr);

// The file of the image `path` alone, as open_disk() finds it: out of its container. May block.
Result<ContainedImage> open_top_file(const std::string& path, const OpenOptions& options,
                                     Caches& caches);

// The format of a top image: `stated`, or what is guessed when that is "". A guess of raw adds a
// line to `warnings`.
Result<const Format*> top_format(const Source& source, const std::string& path,
                                 const std::string& stated, std::vector<std::string>& warnings);

inline constexpr size_t kMaxChainDepth = 256;  // images; longer chains are refused

}  // namespace underlay
