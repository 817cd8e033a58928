// export, import: volumes become images elsewhere, and images become volumes.
#pragma once

#include <string>
#include <vector>

#include "io/error.h"
#include "tools/thin/host.h"
#include "tools/thin/volume_commands.h"

namespace underlay::thin {

struct ExportArguments {
  std::string name;
  std::string target;                // a file, or the URL of an object
  std::string format = "raw";        // of underlay-img convert's -O
  std::vector<std::string> options;  // of its -o
  bool compress = false;
  // Only what differs from this volume, an older snapshot, as an overlay on its image `backing`.
  std::string since;    // "" = all
  std::string backing;  // as the overlay is to name it; a vhd must be there
  std::string backing_format;
  std::vector<std::string> allow_paths;  // folders in which parents of that image may lie
  bool progress = false;                 // also when standard error is no terminal
};
// Writes the volume as an image, as it is at this moment: of a snapshot that is made for this, and
// removed. Only what the pool has of it, and what its image has data in, is read. The image is
// written by underlay-img, and there in full or not at all. A process that is killed leaves the
// snapshot, a volume like others, whose name begins with the volume's.
Result<void> export_command(const Host& host, const ExportArguments& arguments);

struct ImportArguments {
  CreateArguments volume;
  std::optional<uint64_t> rate;  // bytes a second
  bool progress = false;
};
// Makes a volume on the image, which can be used from then on, and copies what the image has in
// data into it: `create`, then `hydrate`, which goes on when this is broken off.
Result<void> import_command(const Host& host, const ImportArguments& arguments);

}  // namespace underlay::thin
