#include "tools/thin/shell_words.h"

#include <doctest/doctest.h>

#include <vector>

namespace underlay::thin {
namespace {

TEST_CASE("a word is quoted where a shell would take it for something else") {
  const std::vector<std::string> command{"a", "/b/c.qcow2", "d e", "it's", "", "$HOME", "*"};
  CHECK(shell_words(command) == R"(a /b/c.qcow2 'd e' 'it'\''s' '' '$HOME' '*')");
}

}  // namespace
}  // namespace underlay::thin
