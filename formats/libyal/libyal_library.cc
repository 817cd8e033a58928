#include "formats/libyal/libyal_library.h"

#include <dlfcn.h>
#include <libqcow.h>
#include <libvhdi.h>
#include <libvmdk.h>

#include <string>
#include <type_traits>

namespace underlay::libyal {
namespace {

// The names are looked up at run time: here the compiler sees that they have these types. What
// concerns libbfio is in no header that Debian installs with libqcow and libvhdi; libbfio.h
// documents it.
template <class Ours, class Theirs>
constexpr bool kSameType = std::is_same_v<Ours, Theirs>;
static_assert(kSameType<decltype(Library::file_initialize), decltype(&libqcow_file_initialize)>);
static_assert(kSameType<decltype(Library::file_free), decltype(&libqcow_file_free)>);
static_assert(
    kSameType<decltype(Library::file_get_media_size), decltype(&libqcow_file_get_media_size)>);
static_assert(kSameType<decltype(Library::file_read_buffer_at_offset),
                        decltype(&libqcow_file_read_buffer_at_offset)>);
static_assert(kSameType<decltype(Library::file_get_encryption_method),
                        decltype(&libqcow_file_get_encryption_method)>);
static_assert(
    kSameType<decltype(Library::file_set_parent), decltype(&libqcow_file_set_parent_file)>);
static_assert(kSameType<decltype(Library::error_backtrace_sprint),
                        decltype(&libqcow_error_backtrace_sprint)>);
static_assert(kSameType<decltype(Library::error_free), decltype(&libqcow_error_free)>);
static_assert(kSameType<decltype(Library::file_initialize), decltype(&libvhdi_file_initialize)>);
static_assert(kSameType<decltype(Library::file_free), decltype(&libvhdi_file_free)>);
static_assert(
    kSameType<decltype(Library::file_get_media_size), decltype(&libvhdi_file_get_media_size)>);
static_assert(kSameType<decltype(Library::file_read_buffer_at_offset),
                        decltype(&libvhdi_file_read_buffer_at_offset)>);
static_assert(kSameType<decltype(Library::error_backtrace_sprint),
                        decltype(&libvhdi_error_backtrace_sprint)>);
static_assert(kSameType<decltype(Library::error_free), decltype(&libvhdi_error_free)>);
static_assert(kSameType<decltype(Library::file_initialize), decltype(&libvmdk_handle_initialize)>);
static_assert(kSameType<decltype(Library::file_free), decltype(&libvmdk_handle_free)>);
static_assert(
    kSameType<decltype(Library::file_get_media_size), decltype(&libvmdk_handle_get_media_size)>);
static_assert(kSameType<decltype(Library::file_read_buffer_at_offset),
                        decltype(&libvmdk_handle_read_buffer_at_offset)>);
static_assert(
    kSameType<decltype(Library::file_set_parent), decltype(&libvmdk_handle_set_parent_handle)>);
static_assert(kSameType<decltype(Library::error_backtrace_sprint),
                        decltype(&libvmdk_error_backtrace_sprint)>);
static_assert(kSameType<decltype(Library::error_free), decltype(&libvmdk_error_free)>);

// A library, or why there is none.
struct Loaded {
  Library library{};
  std::string missing;
};

class Loader {
 public:
  // `image`: what the library calls an image, "file".
  Loader(std::string_view name, const std::string& file, std::string_view image)
      : prefix_(std::string(name) + '_'),
        image_(image),
        image_prefix_(fmt::format("{}_{}_", name, image)),
        handle_(::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    loaded_.library.name = name;
    if (handle_ == nullptr) {
      loaded_.missing = fmt::format("{} cannot be loaded: install the package {}1", file, name);
    }
  }

  template <class Function>
  void find(Function*& function, const std::string& name) {
    if (handle_ == nullptr) return;
    function = reinterpret_cast<Function*>(::dlsym(handle_, name.c_str()));
    if (function == nullptr && loaded_.missing.empty()) {
      loaded_.missing = fmt::format("{} has no function {}", loaded_.library.name, name);
    }
  }

  // Everything that all libraries have.
  void find_all() {
    Library& library = loaded_.library;
    find(library.file_initialize, image_prefix_ + "initialize");
    find(library.file_free, image_prefix_ + "free");
    find(library.file_open_file_io_handle, image_prefix_ + "open_file_io_handle");
    find(library.file_get_media_size, image_prefix_ + "get_media_size");
    find(library.file_read_buffer_at_offset, image_prefix_ + "read_buffer_at_offset");
    find(library.error_backtrace_sprint, prefix_ + "error_backtrace_sprint");
    find(library.error_free, prefix_ + "error_free");
    find(library.bfio_handle_initialize, "libbfio_handle_initialize");
    find(library.bfio_handle_free, "libbfio_handle_free");
  }
  void find_encryption_method() {
    find(loaded_.library.file_get_encryption_method, image_prefix_ + "get_encryption_method");
  }
  void find_parent() {
    find(loaded_.library.file_set_parent, fmt::format("{}set_parent_{}", image_prefix_, image_));
  }
  void find_extents() {
    Library& library = loaded_.library;
    find(library.file_open_extents, image_prefix_ + "open_extent_data_files_file_io_pool");
    find(library.bfio_pool_initialize, "libbfio_pool_initialize");
    find(library.bfio_pool_set_handle, "libbfio_pool_set_handle");
    find(library.bfio_pool_free, "libbfio_pool_free");
  }
  Loaded take() { return std::move(loaded_); }

 private:
  std::string prefix_;
  std::string image_;
  std::string image_prefix_;
  void* handle_;  // never closed
  Loaded loaded_;
};

Loaded load_libqcow() {
  Loader loader("libqcow", "libqcow.so.1", "file");
  loader.find_all();
  loader.find_encryption_method();
  loader.find_parent();
  return loader.take();
}

Loaded load_libvhdi() {
  Loader loader("libvhdi", "libvhdi.so.1", "file");
  loader.find_all();
  return loader.take();
}

Loaded load_libvmdk() {
  Loader loader("libvmdk", "libvmdk.so.1", "handle");
  loader.find_all();
  loader.find_extents();
  loader.find_parent();
  return loader.take();
}

Result<const Library*> checked(const Loaded& loaded) {
  if (!loaded.missing.empty()) return fail(ErrorKind::kUnsupported, "{}", loaded.missing);
  return &loaded.library;
}

}  // namespace

Result<const Library*> libqcow() {
  static const Loaded loaded = load_libqcow();
  return checked(loaded);
}

Result<const Library*> libvhdi() {
  static const Loaded loaded = load_libvhdi();
  return checked(loaded);
}

Result<const Library*> libvmdk() {
  static const Loaded loaded = load_libvmdk();
  return checked(loaded);
}

}  // namespace underlay::libyal
