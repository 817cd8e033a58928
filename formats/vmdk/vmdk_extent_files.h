// The files that a descriptor names as its extents.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/file_range.h"
#include "formats/vmdk/vmdk_descriptor.h"
#include "io/confined_open.h"
#include "io/source.h"

namespace underlay {

class VmdkExtentFiles {
 public:
  // `image` has the descriptor and lies at `path`. All of them outlive this.
  VmdkExtentFiles(const NamedFiles& files, const std::string& path, const Source& image)
      : files_(files), path_(path), image_(image) {}

  // The file of an extent that has one. Fails when that is the image itself, and when the extent
  // shares bytes with one that was opened before. May block.
  Result<std::shared_ptr<const Source>> open(const VmdkExtentLine& line);

 private:
  // What an extent takes of a file.
  struct FileUse {
    std::shared_ptr<const Source> source;  // null when the file has an identity
    std::optional<FileIdentity> identity{};
    FileRange range{};
    size_t line = 0;
  };

  Result<OpenedFile> open_named(const VmdkFileName& file) const;
  Result<void> check_overlap(const std::shared_ptr<const Source>& source,
                             const VmdkExtentLine& line);

  const NamedFiles& files_;
  const std::string& path_;
  const Source& image_;
  std::vector<FileUse> uses_;
};

// Can a flat extent's sectors lie in `source`?
Result<void> check_vmdk_flat_extent(const Source& source, const VmdkExtentLine& line);

}  // namespace underlay
