// libqcow-dump IMAGE OUTPUT: the content of a qcow or qcow2 image without backing file, as libqcow
// reads it.
#include <libqcow.h>

#include <algorithm>

#include "tests/support/libyal_dump.h"

namespace underlay::libyal {
namespace {

class QcowFile {
 public:
  explicit QcowFile(const std::string& path) {
    check(libqcow_file_initialize(&file_, &error_), "cannot initialize");
    check(libqcow_file_open(file_, path.c_str(), LIBQCOW_OPEN_READ, &error_),
          "cannot open " + path);
  }
  QcowFile(const QcowFile&) = delete;
  QcowFile& operator=(const QcowFile&) = delete;
  ~QcowFile() { libqcow_file_free(&file_, nullptr); }

  uint64_t size() {
    size64_t size = 0;
    check(libqcow_file_get_media_size(file_, &size, &error_), "cannot tell the size");
    return size;
  }
  ssize_t read(char* buffer, size_t size, uint64_t offset) {
    return libqcow_file_read_buffer_at_offset(file_, buffer, size, static_cast<off64_t>(offset),
                                              nullptr);
  }

 private:
  void check(int status, const std::string& doing) {
    require(status, error_, &libqcow_error_sprint, &libqcow_error_free, doing);
  }

  libqcow_file_t* file_ = nullptr;
  libqcow_error_t* error_ = nullptr;
};

void dump(const std::vector<std::string>& arguments) {
  QcowFile image(arguments.front());
  copy_to(arguments.back(), image.size(), [&](char* buffer, size_t size, uint64_t offset) {
    return image.read(buffer, size, offset);
  });
}

}  // namespace
}  // namespace underlay::libyal

int main(int argc, char** argv) {
  using namespace underlay::libyal;
  return run(argc, argv, 2, "libqcow-dump IMAGE OUTPUT", dump);
}
