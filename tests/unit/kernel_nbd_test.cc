// What can be said of the kernel's nbd devices without one.
#include "io/kernel_nbd.h"

#include <doctest/doctest.h>

#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

void check_no_index(const std::string& device) {
  CAPTURE(device);
  const auto index = kernel_nbd_index(device);
  REQUIRE(!index);
  CHECK(index.error().kind == ErrorKind::kUsage);
  CHECK(index.error().file == device);
}

TEST_CASE("kernel nbd: a device that is not there yet is known by its name") {
  const auto index = kernel_nbd_index("/dev/nbd4000000000");
  REQUIRE(index);
  CHECK(*index == 4000000000);
  CHECK(kernel_nbd_path(*index) == "/dev/nbd4000000000");
}

TEST_CASE("kernel nbd: what is no nbd device is refused") {
  for (const char* device : {"", "nbd", "nbd99999", "/dev/nbd", "/dev/nbd-1", "/dev/nbd+1",
                             "/dev/nbd 1", "/dev/nbd99999p1", "/dev/nbd4294967296", "/dev/nbdx",
                             "/dev/nosuchnbd0", "/tmp/nbd99999", "/dev/null", "/dev"}) {
    check_no_index(device);
  }
  const TempFolder folder;
  check_no_index(folder.write("nbd0", "a file"));
}

TEST_CASE("kernel nbd: a device that is not there is not connected") {
  const auto found = find_kernel_nbd(4000000000);
  REQUIRE(found);
  CHECK(!*found);
}

}  // namespace
}  // namespace underlay
