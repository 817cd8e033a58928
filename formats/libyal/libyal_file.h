// An image as libqcow, libvhdi or libvmdk reads it.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "formats/libyal/libyal_library.h"
#include "io/source.h"

namespace underlay::libyal {

// What the library reads, and nothing else: no other file, whatever the image names.
struct ImageFiles {
  std::shared_ptr<const Source> image;
  // Of a vmdk: one for each extent that its descriptor names, in order.
  std::vector<std::shared_ptr<const Source>> extents{};
};

// Thread-safe: one call of the library at a time, as it has one read position for each file.
class LibraryFile {
 public:
  // `parent`: null for an image without one. Failures of the library are kMalformed with its own
  // words, unless a file failed: then they are that failure. kUnsupported when the image is
  // encrypted: libqcow opens those whose cipher it does not know.
  static Result<std::unique_ptr<LibraryFile>> open(const Library& library, ImageFiles files,
                                                   std::unique_ptr<LibraryFile> parent = nullptr);
  LibraryFile(const LibraryFile&) = delete;
  LibraryFile& operator=(const LibraryFile&) = delete;
  ~LibraryFile();

  const Library& library() const { return library_; }
  uint64_t size() const { return size_; }  // guest-visible

  // Fills all of `out` with the guest's bytes from `offset`, or fails. May block. What the image
  // does not hold reads as zeros.
  Result<void> read_at(uint64_t offset, MutableByteSpan out);

 private:
  // What a bfio handle's calls work on.
  struct Io {
    std::shared_ptr<const Source> source;
    std::optional<Error>& failure;
    uint64_t position = 0;
    bool open = false;
  };
  static int open_io(intptr_t* io_handle, int access_flags, LibraryError** error);
  static int close_io(intptr_t* io_handle, LibraryError** error);
  static ssize_t read_io(intptr_t* io_handle, uint8_t* buffer, size_t size, LibraryError** error);
  static ssize_t write_io(intptr_t* io_handle, const uint8_t* buffer, size_t size,
                          LibraryError** error);
  static off64_t seek_io(intptr_t* io_handle, off64_t offset, int whence, LibraryError** error);
  static int exists_io(intptr_t* io_handle, LibraryError** error);
  static int is_open_io(intptr_t* io_handle, LibraryError** error);
  static int get_size_io(intptr_t* io_handle, uint64_t* size, LibraryError** error);

  LibraryFile(const Library& library, std::unique_ptr<LibraryFile> parent);
  Result<void> open_all(ImageFiles files);
  Result<void> open_extents(std::vector<std::shared_ptr<const Source>> extents);
  Result<Handle*> make_handle(std::shared_ptr<const Source> source);
  const std::string& name() const { return ios_.front()->source->name(); }
  Result<void> check_not_encrypted();
  Failure failed(std::string_view doing, LibraryError* error);

  const Library& library_;
  const std::unique_ptr<LibraryFile> parent_;
  std::mutex mutex_;  // of everything below, and of all calls of the library
  // Of a source, the parent's as well, during the library's call that goes on.
  std::shared_ptr<std::optional<Error>> failure_;
  // The first is the image's. The library has their addresses.
  std::vector<std::unique_ptr<Io>> ios_;
  Handle* handle_ = nullptr;
  Pool* pool_ = nullptr;  // of the extents' handles
  File* file_ = nullptr;
  uint64_t size_ = 0;  // constant once it is open
};

}  // namespace underlay::libyal
