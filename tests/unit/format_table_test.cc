#include "formats/format_table.h"

#include <doctest/doctest.h>

#include <set>

#include "io/faulty_source.h"
#include "io/memory_source.h"

namespace underlay {
namespace {

TEST_CASE("every format is found by its name and alias, and no name stands for two") {
  std::set<std::string_view> names;
  for (const Format& format : formats()) {
    CHECK(find_format(format.name) == &format);
    CHECK(names.insert(format.name).second);
    if (format.alias.empty()) continue;
    CHECK(find_format(format.alias) == &format);
    CHECK(names.insert(format.alias).second);
  }
}

TEST_CASE("an unknown, empty or oddly written name is no format") {
  for (const char* name : {"", "RAW", "raw ", "nothing", "json:{}"}) CHECK(!find_format(name));
}

TEST_CASE("messages list every format") {
  for (const Format& format : formats()) {
    CHECK(format_names().find(format.name) != std::string::npos);
  }
}

TEST_CASE("bytes without any sign are guessed as nothing, whatever their length") {
  for (const size_t size : {0u, 1u, 511u, 512u, 1535u, 1536u, 1537u, 65535u, 65537u, 1u << 20}) {
    for (const std::byte fill : {std::byte{0}, std::byte{0xff}, std::byte{'x'}}) {
      CAPTURE(size);
      const MemorySource source(std::vector<std::byte>(size, fill));
      const Guess guess = *guess_format(source);
      CHECK(guess.format == nullptr);
      CHECK(guess.damaged == "");
    }
  }
}

TEST_CASE("a file that cannot be read is not guessed") {
  FaultySource source(std::make_shared<MemorySource>(std::vector<std::byte>(100000)));
  for (const int64_t nth : {0, 1}) {
    source.fail_read(nth);
    CHECK(!guess_format(source));
  }
  CHECK(guess_format(source));
}

}  // namespace
}  // namespace underlay
