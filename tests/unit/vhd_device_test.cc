// VHDs that were copied to a larger device: the image ends before the file does.
#include <doctest/doctest.h>

#include <cstring>
#include <functional>

#include "formats/vhd/vhd.h"
#include "tests/support/vhd_disks.h"

namespace underlay::vhd::test {
namespace {

// What a device holds behind the image.
Bytes on_device(Bytes image, const Bytes& behind) {
  image.insert(image.end(), behind.begin(), behind.end());
  return image;
}

// The trailing footer of another image, which an earlier use of the device has left.
Bytes stale_footer() {
  VhdBuilder other = dynamic();
  other.id = std::byte{0x99};
  other.current_size = kSize - 512;
  const Bytes image = other.build();
  return Bytes(image.end() - 512, image.end());
}

bool warns(const Opened& disk, std::string_view words) {
  return disk.disk->warnings.size() == 1 && disk.disk->warnings[0].find(words) != std::string::npos;
}

TEST_CASE("vhd device: the image ends with the footer behind its last block") {
  const MemoryFiles files = parent_files();
  Bytes random_then_stale = pattern(7000 / 512 * 512, 3);
  const Bytes stale = stale_footer();
  random_then_stale.insert(random_then_stale.end(), stale.begin(), stale.end());
  for (const Bytes& behind : {Bytes(512), Bytes(1 << 20), pattern(5000, 1), random_then_stale}) {
    for (const VhdBuilder& builder : {dynamic(), differencing(), with_batmap()}) {
      const Bytes image = builder.build();
      const Opened alone = open(image, files);
      const Opened disk = open(on_device(image, behind), files);
      REQUIRE(disk);
      CHECK(read_all(disk) == read_all(alone));
      CHECK(warns(disk, fmt::format("its footer at byte {}", image.size() - 512)));
    }
  }
}

TEST_CASE("vhd device: an image without blocks ends behind its tables and locators") {
  VhdBuilder child = with_batmap();
  child.blocks.clear();
  const Bytes image = child.build();
  const Opened disk = open(on_device(image, Bytes(8192)), parent_files());
  CHECK(read_all(disk) == content_of(dynamic()));
  CHECK(warns(disk, fmt::format("its footer at byte {}", image.size() - 512)));
}

TEST_CASE("vhd device: what no footer ends is told to be perhaps a cut image") {
  Bytes image = dynamic().build();
  const auto sectors = static_cast<uint32_t>(image.size() / 512);
  store_be<uint32_t>(image, VhdBuilder::kTableAt + 5 * 4, sectors);
  // Its end is the image's then, and no footer is there: the image may be one that was cut.
  const Opened disk = open(on_device(image, Bytes(1 << 20)));
  CHECK(warns(disk, "is the file truncated?"));
}

TEST_CASE("vhd device: without a footer behind the blocks, the copy at 0 speaks for all of it") {
  const Bytes image = dynamic().build();
  const Bytes cut(image.begin(), image.end() - 512);
  const Opened disk = open(on_device(cut, Bytes(4096)));
  CHECK(read_all(disk) == content_of(dynamic()));
  CHECK(warns(disk, "is the file truncated?"));
}

TEST_CASE("vhd device: two images' footers and nothing to tell which is meant are refused") {
  const Bytes image = dynamic().build();
  const Bytes cut(image.begin(), image.end() - 512);
  Bytes behind(4096);
  const Bytes stale = stale_footer();
  behind.insert(behind.end(), stale.begin(), stale.end());
  const Opened opened = open(on_device(cut, behind));
  CHECK(opened.error() == ErrorKind::kMalformed);
  for (const char* id :
       {"11111111-1111-1111-1111-111111111111", "99999999-9999-9999-9999-999999999999"}) {
    CHECK(opened.disk.error().message.find(id) != std::string::npos);
  }
}

TEST_CASE("vhd device: an image as large as its device has its footer at the end") {
  Bytes image = dynamic().build();
  const Bytes footer(image.end() - 512, image.end());
  image.insert(image.end() - 512, 1 << 20, std::byte{0xee});
  const Opened disk = open(image);
  CHECK(read_all(disk) == content_of(dynamic()));
  CHECK(disk.disk->warnings.empty());
}

TEST_CASE("vhd device: a read that fails while the footer is looked for is a failure") {
  const Bytes device = on_device(with_batmap().build(), Bytes(8192));
  const MemoryFiles files = parent_files();
  const Bytes truth = read_all(open(device, files));
  for (int64_t n = 0;; ++n) {
    const auto source = std::make_shared<FaultySource>(std::make_shared<MemorySource>(device));
    source->fail_read(n);
    const Opened disk = open(source, files);
    if (disk) {
      if (const auto got = read(disk, 0, truth.size())) CHECK(*got == truth);
      break;
    }
    CHECK(disk.error() == ErrorKind::kIo);
  }
}

}  // namespace
}  // namespace underlay::vhd::test
