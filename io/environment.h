// Variables of the environment.
#pragma once

#include <cstdlib>
#include <initializer_list>
#include <string>

namespace underlay {

// A variable's value; "" when it is not set.
inline std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// The first that is not empty; "" when all are.
inline std::string first_set(std::initializer_list<std::string> values) {
  for (const std::string& value : values) {
    if (!value.empty()) return value;
  }
  return {};
}

}  // namespace underlay
