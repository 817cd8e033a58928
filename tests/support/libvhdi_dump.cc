// libvhdi-dump IMAGE [PARENT...] OUTPUT: the content of a VHD or VHDX image, as libvhdi reads it.
// PARENT: the images that it stands on, nearest first.
#include <libvhdi.h>

#include "tests/support/libyal_dump.h"

namespace underlay::libyal {
namespace {

class VhdiFile {
 public:
  explicit VhdiFile(const std::string& path) {
    check(libvhdi_file_initialize(&file_, &error_), "cannot initialize");
    check(libvhdi_file_open(file_, path.c_str(), LIBVHDI_OPEN_READ, &error_),
          "cannot open " + path);
  }
  VhdiFile(const VhdiFile&) = delete;
  VhdiFile& operator=(const VhdiFile&) = delete;
  ~VhdiFile() { libvhdi_file_free(&file_, nullptr); }

  // `parent` must outlive this.
  void set_parent(VhdiFile& parent) {
    check(libvhdi_file_set_parent_file(file_, parent.file_, &error_), "cannot set the parent");
  }
  uint64_t size() {
    size64_t size = 0;
    check(libvhdi_file_get_media_size(file_, &size, &error_), "cannot tell the size");
    return size;
  }
  ssize_t read(char* buffer, size_t size, uint64_t offset) {
    return libvhdi_file_read_buffer_at_offset(file_, buffer, size, static_cast<off64_t>(offset),
                                              nullptr);
  }

 private:
  void check(int status, const std::string& doing) {
    require(status, error_, &libvhdi_error_sprint, &libvhdi_error_free, doing);
  }

  libvhdi_file_t* file_ = nullptr;
  libvhdi_error_t* error_ = nullptr;
};

}  // namespace
}  // namespace underlay::libyal

int main(int argc, char** argv) {
  using namespace underlay::libyal;
  return run(argc, argv, 2, "libvhdi-dump IMAGE [PARENT...] OUTPUT", dump_chain<VhdiFile>);
}
