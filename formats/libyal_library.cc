#include "formats/libyal_library.h"

#include <dlfcn.h>
#include <libqcow.h>
#include <libvhdi.h>

#include <string>
#include <type_traits>

namespace underlay::libyal {
namespace {

// The names are looked up at run time: here the compiler sees that they have these types. What
// concerns libbfio is in no header that Debian installs with the two; libbfio.h documents it.
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

// A library, or why there is none.
struct Loaded {
  Library library{};
  std::string missing;
};

class Loader {
 public:
  Loader(std::string_view name, const std::string& file)
      : prefix_(std::string(name) + '_'), handle_(::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) {
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

  // Everything that both libraries have.
  void find_all() {
    Library& library = loaded_.library;
    find(library.file_initialize, prefix_ + "file_initialize");
    find(library.file_free, prefix_ + "file_free");
    find(library.file_open_file_io_handle, prefix_ + "file_open_file_io_handle");
    find(library.file_get_media_size, prefix_ + "file_get_media_size");
    find(library.file_read_buffer_at_offset, prefix_ + "file_read_buffer_at_offset");
    find(library.error_backtrace_sprint, prefix_ + "error_backtrace_sprint");
    find(library.error_free, prefix_ + "error_free");
    find(library.bfio_handle_initialize, "libbfio_handle_initialize");
    find(library.bfio_handle_free, "libbfio_handle_free");
  }
  void find_encryption_method() {
    find(loaded_.library.file_get_encryption_method, prefix_ + "file_get_encryption_method");
  }
  Loaded take() { return std::move(loaded_); }

 private:
  std::string prefix_;
  void* handle_;  // never closed
  Loaded loaded_;
};

Loaded load_libqcow() {
  Loader loader("libqcow", "libqcow.so.1");
  loader.find_all();
  loader.find_encryption_method();
  return loader.take();
}

Loaded load_libvhdi() {
  Loader loader("libvhdi", "libvhdi.so.1");
  loader.find_all();
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

}  // namespace underlay::libyal
