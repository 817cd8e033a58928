// An image as libqcow or libvhdi reads it.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "formats/libyal_library.h"
#include "io/source.h"

namespace underlay::libyal {

// Thread-safe: one call of the library at a time, as it has one read position for each file.
class LibraryFile {
 public:
  // The library reads `source` and nothing else: no other file, whatever the image names. Its
  // failures are kMalformed with its own words, unless `source` failed: then they are that failure.
  // kUnsupported when the image is encrypted: libqcow opens those whose cipher it does not know.
  static Result<std::unique_ptr<LibraryFile>> open(const Library& library,
                                                   std::shared_ptr<const Source> source);
  LibraryFile(const LibraryFile&) = delete;
  LibraryFile& operator=(const LibraryFile&) = delete;
  ~LibraryFile();

  const Library& library() const { return library_; }
  uint64_t size() const { return size_; }  // guest-visible

  // Fills all of `out` with the guest's bytes from `offset`, or fails. May block. What the image
  // does not hold reads as zeros.
  Result<void> read_at(uint64_t offset, MutableByteSpan out);

 private:
  // What the bfio handle's calls work on.
  struct Io {
    const Source& source;
    uint64_t position = 0;
    bool open = false;
    std::optional<Error> failure;  // of the source, during the library's call that goes on
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

  LibraryFile(const Library& library, std::shared_ptr<const Source> source)
      : library_(library), source_(std::move(source)), io_{.source = *source_, .failure = {}} {}
  Result<void> open_image();
  Result<void> check_not_encrypted();
  Failure failed(std::string_view doing, LibraryError* error);

  const Library& library_;
  std::shared_ptr<const Source> source_;
  std::mutex mutex_;  // of everything below, and of all calls of the library
  Io io_;
  Handle* handle_ = nullptr;
  File* file_ = nullptr;
  uint64_t size_ = 0;  // constant once it is open
};

}  // namespace underlay::libyal
