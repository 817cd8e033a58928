// Libraries that are loaded when the first of their functions is called: linked as usual, they
// would lengthen the start of every command, most of which need none of them. A file X_on_demand.cc
// defines the functions of one that are used, each of which goes on to the library's own.
#pragma once

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

namespace underlay {

// A library by its file's name, "libnbd.so.0". Never unloaded.
class LibraryOnDemand {
 public:
  explicit LibraryOnDemand(const char* file)
      : file_(file), handle_(::dlopen(file, RTLD_NOW | RTLD_LOCAL)) {}

  bool is_there() const { return handle_ != nullptr; }

  // The library's function of that name, which is looked up once and has the type of `Declared`.
  // Ends the program when the library has none. REQUIRES: is_there().
  template <auto Declared>
  auto function(const char* name) const {
    static const auto found = reinterpret_cast<decltype(Declared)>(find(name));
    return found;
  }
  template <auto Declared, class... Arguments>
  auto call(const char* name, Arguments... arguments) const {
    return function<Declared>(name)(arguments...);
  }

 private:
  void* find(const char* name) const {
    void* const function = ::dlsym(handle_, name);
    if (function != nullptr) return function;
    std::fprintf(stderr, "%s has no %s: it is older than the one this was built with\n", file_,
                 name);
    std::abort();
  }

  const char* file_;
  void* handle_;
};

}  // namespace underlay
