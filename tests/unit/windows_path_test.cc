#include "formats/windows_path.h"

#include <doctest/doctest.h>

namespace underlay {
namespace {

TEST_CASE("Windows paths become names that can exist here") {
  CHECK(name_of_windows_path(".\\base.vhd") == "base.vhd");
  CHECK(name_of_windows_path(".\\.\\\\a\\b.vhd") == "a/b.vhd");
  CHECK(name_of_windows_path("..\\b.vhd") == "../b.vhd");
  CHECK(name_of_windows_path("C:\\x\\b.vhd") == "b.vhd");
  CHECK(name_of_windows_path("c:b.vhd") == "b.vhd");
  CHECK(name_of_windows_path("C:\\") == "");
  CHECK(name_of_windows_path("C:") == "");
  CHECK(name_of_windows_path("\\\\server\\share\\b.vhd") == "b.vhd");
  CHECK(name_of_windows_path("\\\\?\\C:\\x\\b.vhd") == "b.vhd");
  CHECK(name_of_windows_path("/sr/b.vhd") == "/sr/b.vhd");
  CHECK(name_of_windows_path("./") == "");
  CHECK(name_of_windows_path(".///") == "");
  CHECK(name_of_windows_path(".") == ".");
  CHECK(name_of_windows_path("") == "");
}

}  // namespace
}  // namespace underlay
