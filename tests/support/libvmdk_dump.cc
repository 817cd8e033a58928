// libvmdk-dump IMAGE [PARENT...] OUTPUT: the content of a VMDK image, as libvmdk reads it.
// PARENT: the images that it stands on, nearest first.
#include <libvmdk.h>

#include "tests/support/libyal_dump.h"

namespace underlay::libyal {
namespace {

class VmdkHandle {
 public:
  explicit VmdkHandle(const std::string& path) {
    check(libvmdk_handle_initialize(&handle_, &error_), "cannot initialize");
    check(libvmdk_handle_open(handle_, path.c_str(), LIBVMDK_OPEN_READ, &error_),
          "cannot open " + path);
    check(libvmdk_handle_open_extent_data_files(handle_, &error_),
          "cannot open the extents of " + path);
  }
  VmdkHandle(const VmdkHandle&) = delete;
  VmdkHandle& operator=(const VmdkHandle&) = delete;
  ~VmdkHandle() { libvmdk_handle_free(&handle_, nullptr); }

  // `parent` must outlive this.
  void set_parent(VmdkHandle& parent) {
    check(libvmdk_handle_set_parent_handle(handle_, parent.handle_, &error_),
          "cannot set the parent");
  }
  uint64_t size() {
    size64_t size = 0;
    check(libvmdk_handle_get_media_size(handle_, &size, &error_), "cannot tell the size");
    return size;
  }
  ssize_t read(char* buffer, size_t size, uint64_t offset) {
    return libvmdk_handle_read_buffer_at_offset(handle_, buffer, size, static_cast<off64_t>(offset),
                                                nullptr);
  }

 private:
  void check(int status, const std::string& doing) {
    require(status, error_, &libvmdk_error_sprint, &libvmdk_error_free, doing);
  }

  libvmdk_handle_t* handle_ = nullptr;
  libvmdk_error_t* error_ = nullptr;
};

}  // namespace
}  // namespace underlay::libyal

int main(int argc, char** argv) {
  using namespace underlay::libyal;
  return run(argc, argv, 2, "libvmdk-dump IMAGE [PARENT...] OUTPUT", dump_chain<VmdkHandle>);
}
