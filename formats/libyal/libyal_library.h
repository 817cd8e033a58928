// libqcow, libvhdi and libvmdk, loaded when the first image needs one of them.
//
// They are not linked: Debian builds each with a copy of its own of some twelve libraries
// (libbfio, libfdata, libuna, ...), of different versions and with all their names visible. Linked
// into one program, one library's calls would end in the other's copies. (libvmdk has libbfio as a
// library of its own.)
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string_view>

#include "io/error.h"

namespace underlay::libyal {

// Their handles are all pointers to intptr_t: libqcow_file_t, libvhdi_file_t, libvmdk_handle_t,
// libbfio_handle_t, libbfio_pool_t, libcerror_error_t.
using File = intptr_t;
using Handle = intptr_t;
using Pool = intptr_t;
using LibraryError = intptr_t;

// What a bfio handle calls; `io_handle` is what it was made with.
using OpenIo = int(intptr_t* io_handle, int access_flags, LibraryError** error);
using CloseIo = int(intptr_t* io_handle, LibraryError** error);
using ReadIo = ssize_t(intptr_t* io_handle, uint8_t* buffer, size_t size, LibraryError** error);
using WriteIo = ssize_t(intptr_t* io_handle, const uint8_t* buffer, size_t size,
                        LibraryError** error);
using SeekIo = off64_t(intptr_t* io_handle, off64_t offset, int whence, LibraryError** error);
using AskIo = int(intptr_t* io_handle, LibraryError** error);
using SizeIo = int(intptr_t* io_handle, uint64_t* size, LibraryError** error);
using FreeIo = int(intptr_t** io_handle, LibraryError** error);
using CloneIo = int(intptr_t** copy, intptr_t* io_handle, LibraryError** error);

// One library's functions, which have the same types in all. They return 1 for success, a read the
// number of bytes. What is a file to the others, libvmdk calls a handle.
struct Library {
  std::string_view name;  // "libqcow"

  int (*file_initialize)(File** file, LibraryError** error);
  int (*file_free)(File** file, LibraryError** error);
  int (*file_open_file_io_handle)(File* file, Handle* handle, int access_flags,
                                  LibraryError** error);
  int (*file_get_media_size)(File* file, uint64_t* size, LibraryError** error);
  ssize_t (*file_read_buffer_at_offset)(File* file, void* buffer, size_t size, off64_t offset,
                                        LibraryError** error);
  // Null where a library's formats have no encryption.
  int (*file_get_encryption_method)(File* file, uint32_t* method, LibraryError** error);
  // Gives an image its parent, which must outlive it. Null in libvhdi, which misreads such images.
  int (*file_set_parent)(File* file, File* parent, LibraryError** error);
  // Gives an image its further files, one for each extent, in order. Null but in libvmdk. The pool
  // must outlive the file.
  int (*file_open_extents)(File* file, Pool* pool, LibraryError** error);
  int (*error_backtrace_sprint)(LibraryError* error, char* text, size_t size);
  void (*error_free)(LibraryError** error);

  // Of the library's own copy of libbfio.
  int (*bfio_handle_initialize)(Handle** handle, intptr_t* io_handle, FreeIo* free_io,
                                CloneIo* clone, OpenIo* open, CloseIo* close, ReadIo* read,
                                WriteIo* write, SeekIo* seek, AskIo* exists, AskIo* is_open,
                                SizeIo* get_size, uint8_t flags, LibraryError** error);
  int (*bfio_handle_free)(Handle** handle, LibraryError** error);
  // Only with file_open_extents; else null. A pool owns the handles in it. No limit of open handles
  // is 0.
  int (*bfio_pool_initialize)(Pool** pool, int handles, int most_open, LibraryError** error);
  int (*bfio_pool_set_handle)(Pool* pool, int entry, Handle* handle, int access_flags,
                              LibraryError** error);
  int (*bfio_pool_free)(Pool** pool, LibraryError** error);
};

// Stay loaded for good. kUnsupported when the library is not installed. Thread-safe.
Result<const Library*> libqcow();
Result<const Library*> libvhdi();
Result<const Library*> libvmdk();

}  // namespace underlay::libyal
