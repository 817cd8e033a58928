// An image on the command line, and the options that say how it is to be read.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/format_table.h"
#include "formats/inspection/inspector.h"
#include "formats/open_chain.h"
#include "tools/img/command.h"
#include "tools/img/data_map.h"

namespace underlay::img {

struct ImageArgument {
  std::string path;      // for messages and reports
  std::string location;  // a local file, a URL or the URI of an NBD export: it may hold a signature
  OpenOptions open;
  std::vector<std::string> allowed;  // --allow-path
  // What of a raw disk has data; nullopt: whatever is stored.
  std::optional<std::vector<DataRange>> data_map{};
  FileHoles file_holes = FileHoles::kHoles;  // within that

  bool is_export() const;  // of an NBD server
};

// Options of all commands that read an image: -f, --image-opts, --object, --allow-path, --parent,
// --reader, -U.
std::vector<Option> image_options();
// The same for commands that open no file but the image: without --allow-path, --parent, --reader.
std::vector<Option> lone_image_options();
// -l: the disk at an internal snapshot.
Option snapshot_option();

// What `given` makes of the operand `file`. `format_option`: which option has its format.
Result<ImageArgument> image_argument(const Given& given, const std::string& file,
                                     std::string_view format_option = "format");
// As snapshot_option() was given.
void choose_snapshot(const Given& given, ImageArgument& image);

// The disk of the image, with its parents. NBD exports are raw unless a format was given. Warnings
// are printed unless `quiet`. `caches` outlives the disk.
Result<std::shared_ptr<const Disk>> open_image(const ImageArgument& image, Caches& caches,
                                               bool quiet, const ChainVisitor& visit = nullptr);

// The image's file alone, out of its container; nothing that it names is opened.
struct LoneImage {
  OpenedFile file;
  std::shared_ptr<const NamedFiles> files;  // of the archive that it is in; null: none
  std::vector<std::string> members;         // of that archive: all its files, as it names them
  const Format* format = nullptr;           // as stated, or as guessed
  std::vector<std::string> warnings;
};
Result<LoneImage> open_lone_image(const ImageArgument& image, Caches& caches);

// For images whose names are not to be followed: every open fails.
class NoNamedFiles final : public NamedFiles {
 public:
  Result<OpenedFile> open(const std::string& namer, std::string_view name) const override;
};
inline const NoNamedFiles kNoNamedFiles{};

// What a format's inspector looks at. Lives as long as what it is made of.
FileToInspect file_to_inspect(const OpenedFile& file, const ImageOptions& options, Caches& caches,
                              const NamedFiles& files = kNoNamedFiles);

}  // namespace underlay::img
