// What nbd-load is asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/error.h"

namespace underlay::bench {

struct Settings {
  std::string socket;  // a unix socket's path, or empty
  std::string host;    // with TCP
  std::string port;
  std::string export_name;
  std::string verify;  // a raw image's path, or empty
  uint64_t size = 4096;
  uint64_t from = 0;
  uint64_t range = 0;  // 0: up to the export's end
  unsigned depth = 32;
  unsigned connections = 1;
  bool sequential = false;
  bool batch = false;
  bool discard = false;
  uint64_t operations = 0;  // 0: for `seconds`
  double seconds = 2;
  uint64_t seed = 1;
};

// nullopt when only help was wanted, which is on standard output then.
Result<std::optional<Settings>> parse_settings(int argc, char** argv);

}  // namespace underlay::bench
