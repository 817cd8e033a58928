#include "formats/dirty_bitmap.h"

#include "formats/disk.h"

namespace underlay {

Result<std::shared_ptr<const DirtyBitmap>> find_dirty_bitmap(const Disk& disk,
                                                             std::string_view name) {
  for (const Layer& layer : disk.layers()) {
    auto found = layer.reader->dirty_bitmap(name);
    if (!found) return in_file(std::move(found).error(), layer.path);
    if (*found) return std::shared_ptr<const DirtyBitmap>(*std::move(found));
  }
  return in_file(fail(ErrorKind::kNotFound,
                      "neither it nor its backing files have a dirty bitmap \"{}\": qemu-img info "
                      "lists those that there are",
                      printable(name, 200)),
                 disk.layers().front().path);
}

}  // namespace underlay
