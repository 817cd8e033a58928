// What must hold whatever the bytes are. Aborts when it does not.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#include "io/error.h"

namespace underlay {

inline void require(bool holds, const char* rule) {
  if (holds) return;
  std::fprintf(stderr, "broken rule: %s\n", rule);
  std::abort();
}

inline void check_error(const Error& error) {
  const std::string line = error.to_string();
  require(!line.empty() && printable(line, line.size()) == line, "an error is one printable line");
}

}  // namespace underlay
