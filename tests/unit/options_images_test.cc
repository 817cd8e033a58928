// The command line of underlay-nbd: what it says of images and of their secrets.
#include <doctest/doctest.h>

#include "server/limits.h"
#include "server/options.h"
#include "tests/support/parsed_options.h"

namespace underlay {
namespace {

using test::check_refused;
using test::parsed;
using test::Words;

}  // namespace

TEST_CASE("options: -B names dirty bitmaps, each once, in their order") {
  CHECK(parsed({"F"}).bitmaps.empty());
  CHECK(parsed({"-B", "b1", "--bitmap=b0", "-Bb1", "F"}).bitmaps == Words{"b1", "b0"});
  CHECK(parsed({"-B", "b", "-o", "0", "--export", "x=G"}).bitmaps == Words{"b"});
}

TEST_CASE("options: -B goes with a whole active disk, not with a part or a snapshot") {
  check_refused({"-B", "b", "-o", "512", "F"}, ErrorKind::kUsage, "-B and -o");
  check_refused({"-B", "b", "-l", "s", "F"}, ErrorKind::kUsage, "-B and -l");
  check_refused({"-B", "b", "--directory", "/tmp"}, ErrorKind::kUsage, "--bitmap is about FILE");
  check_refused({"-L", "-B", "b"}, ErrorKind::kUsage, "List mode");
}

TEST_CASE("options: the number of dirty bitmaps is bounded") {
  Words words{"F"};
  for (size_t i = 0; i < limits::kDirtyBitmaps; ++i) words.push_back(fmt::format("-Bb{}", i));
  CHECK(parsed(words).bitmaps.size() == limits::kDirtyBitmaps);
  words.push_back("-Bone-more");
  check_refused(words, ErrorKind::kUsage, "33 bitmaps are more than 32");
}

TEST_CASE("options: --object gives an image its passphrase file") {
  const Options options =
      parsed({"--object", "secret,id=s0,file=/k0", "--object=secret,id=s1,file=/k1,format=base64",
              "--image-opts", "driver=qcow2,file.filename=F,encrypt.key-secret=s1"});
  REQUIRE(options.exports.size() == 1);
  REQUIRE(options.exports[0].open.image.key);
  CHECK(options.exports[0].open.image.key->path == "/k1");
  CHECK(options.exports[0].open.image.key->base64);
  check_refused({"--object", "secret,id=s0,file=/k0", "--object=secret,id=s0,file=/k1", "F"},
                ErrorKind::kUsage, "two secrets have the id \"s0\"");
  check_refused({"--image-opts", "driver=qcow2,file.filename=F,encrypt.key-secret=s1"},
                ErrorKind::kUsage, "there is no secret \"s1\"");
}

}  // namespace underlay
