#include "tools/thin/output.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

namespace underlay::thin {

void print_json(const nlohmann::ordered_json& document) {
  using Handler = nlohmann::ordered_json::error_handler_t;
  fmt::print("{}\n", document.dump(2, ' ', /*ensure_ascii=*/false, Handler::replace));
}

void warn(const std::string& line) {
  fmt::print(stderr, "underlay-thin: warning: {}\n", printable(line));
}

Result<void> report_device(const Host& host, const std::string& path) {
  if (host.json) {
    print_json({{"version", 1}, {"device", path}});
  } else {
    fmt::print("{}\n", path);
  }
  return {};
}

}  // namespace underlay::thin
