#include "tools/img/image_files.h"

namespace underlay::img {

bool is_file_of(const Disk& disk, const struct stat& status) {
  for (const Layer& layer : disk.layers()) {
    for (const Source* source : layer.reader->sources()) {
      const auto identity = source->file().identity();
      if (identity && identity->device == status.st_dev && identity->inode == status.st_ino) {
        return true;
      }
    }
  }
  return false;
}

}  // namespace underlay::img
