// Names of files, as qemu reads them.
#pragma once

#include <string_view>

namespace underlay {

// Has `name` a protocol ("nbd://", "json:", "file:")? By qemu's rule: a ':' before its first '/'.
inline bool names_protocol(std::string_view name) {
  const size_t at = name.find_first_of(":/");
  return at != std::string_view::npos && name[at] == ':';
}

}  // namespace underlay
