// http-source-dump: an object on a server as io/http reads it, for tests.
//   http-source-dump read NAME RANGE_MS THREADS UNIT
// writes its bytes to standard output; the threads take turns with units of that many bytes.
//   http-source-dump pause NAME RANGE_MS OFFSET LENGTH
// opens it, says so on standard error ("opened"), and reads the range once a line comes from
// standard input; again for every further line. It says "read" before it writes the bytes to
// standard output, or tells the failure, which ends nothing. RANGE_MS: HttpLimits::range; a request
// is given up after a quarter of it without a byte.
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "io/http/http_source.h"
#include "tests/support/read_all.h"

namespace underlay {
namespace {

using Words = std::vector<std::string>;

void read_when_asked(const Source& source, uint64_t offset, size_t length) {
  fmt::print(stderr, "opened\n");
  std::vector<std::byte> bytes(length);
  for (std::string line; std::getline(std::cin, line);) {
    const auto done = source.read_at(offset, bytes);
    if (!done) {
      fmt::print(stderr, "{}\n", done.error().to_string());
      continue;
    }
    fmt::print(stderr, "read\n");
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    std::fflush(stdout);
  }
}

Result<void> run(const Words& words) {
  HttpLimits limits;
  limits.range = std::chrono::milliseconds(std::stoul(words.at(2)));
  limits.connect = limits.range;
  limits.stall = std::chrono::ceil<std::chrono::seconds>(limits.range / 4);
  const auto source = TRY(open_http_source(words.at(1), HttpKeeper::kSource, limits));
  if (words.at(0) == "pause") {
    read_when_asked(*source, std::stoull(words.at(3)), std::stoull(words.at(4)));
    return {};
  }
  const auto content =
      TRY(test::read_all(*source, std::stoul(words.at(3)), std::stoull(words.at(4))));
  if (!content.empty()) std::fwrite(content.data(), 1, content.size(), stdout);
  return {};
}

}  // namespace
}  // namespace underlay

int main(int argc, char** argv) {
  try {
    const auto result = underlay::run(underlay::Words(argv + 1, argv + argc));
    if (!result) fmt::print(stderr, "{}\n", result.error().to_string());
    return result ? 0 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "http-source-dump: {}\n", error.what());
    return 2;
  }
}
