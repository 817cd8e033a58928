#include "formats/open_chain.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include "formats/format_table.h"
#include "io/memory_source.h"
#include "tests/support/qcow2_builder.h"
#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

OpenOptions as(std::string format) {
  OpenOptions options;
  options.format = std::move(format);
  return options;
}

struct Opener {
  Result<OpenedDisk> open(const std::string& path, const OpenOptions& options = {}) {
    return open_disk(path, options, confinement, caches);
  }

  TempFolder folder;
  Confinement confinement;
  Caches caches;
};

TEST_CASE("a stated format is obeyed without a warning") {
  Opener opener;
  const auto opened = opener.open(opener.folder.write("a", std::string(1024, 'x')), as("raw"));
  REQUIRE(opened);
  CHECK(opened->warnings.empty());
  CHECK(opened->disk->size() == 1024);
  REQUIRE(opened->disk->layers().size() == 1);
  CHECK(opened->disk->layers()[0].path == opener.folder.path("a"));
}

TEST_CASE("raw by guessing is told in a warning that names the file") {
  Opener opener;
  const auto opened = opener.open(opener.folder.write("a", std::string(1024, 'x')));
  REQUIRE(opened);
  REQUIRE(opened->warnings.size() == 1);
  CHECK(opened->warnings[0].find(opener.folder.path("a")) == 0);
  CHECK(opened->warnings[0].find("-f raw") != std::string::npos);
}

TEST_CASE("an unknown format is refused with the list of those that are known") {
  Opener opener;
  const auto opened = opener.open(opener.folder.write("a", "x"), as("no\nformat"));
  REQUIRE(!opened);
  CHECK(opened.error().kind == ErrorKind::kUnsupported);
  CHECK(opened.error().message.find("\"no\\x0aformat\"") == std::string("format ").size());
  CHECK(opened.error().message.find("raw") != std::string::npos);
}

TEST_CASE("a missing file, a folder and a FIFO are refused") {
  Opener opener;
  const auto missing = opener.open(opener.folder.path("none"), as("raw"));
  REQUIRE(!missing);
  CHECK(missing.error().kind == ErrorKind::kNotFound);
  CHECK(!opener.open(opener.folder.path(), as("raw")));
  REQUIRE(::mkfifo(opener.folder.path("fifo").c_str(), 0600) == 0);
  CHECK(!opener.open(opener.folder.path("fifo"), as("raw")));
}

TEST_CASE("a missing file that an image names is a failure, not the absence of the image") {
  Opener opener;
  const std::string descriptor = "# Disk DescriptorFile\ncreateType=custom\n";
  const std::string extent =
      opener.folder.write("extent.vmdk", descriptor + "RW 8 FLAT \"missing\" 0\n");
  const std::string parent = opener.folder.write(
      "parent.vmdk",
      descriptor + "CID=1\nparentCID=2\nparentFileNameHint=\"missing\"\nRW 8 ZERO\n");
  Qcow2Builder data_file({.external_data = true});
  data_file.add_extension(0x44415441, "missing");
  Qcow2Builder backing({});
  backing.set_backing_name("missing");
  for (const std::string& path :
       {extent, parent, opener.folder.write("data.qcow2", as_text(data_file.file)),
        opener.folder.write("backing.qcow2", as_text(backing.file))}) {
    const auto opened = opener.open(path);
    REQUIRE(!opened);
    const std::string line = opened.error().to_string();
    CAPTURE(line);
    CHECK(opened.error().kind == ErrorKind::kIo);
    CHECK(opened.error().sys_errno == ENOENT);
    CHECK(opened.error().file == path);
    CHECK(line.find("names the file \"missing\"") != std::string::npos);
  }
}

TEST_CASE("a parent of an unknown format is refused before its file is looked for") {
  Opener opener;
  Qcow2Builder backing({});
  backing.add_extension(0xe2792aca, "host_device");
  backing.set_backing_name("missing");
  const auto opened = opener.open(opener.folder.write("backing.qcow2", as_text(backing.file)));
  REQUIRE(!opened);
  CHECK(opened.error().kind == ErrorKind::kUnsupported);
  CHECK(opened.error().message.find("host_device") != std::string::npos);
}

TEST_CASE("a size that is no multiple of a sector is told in a warning") {
  Opener opener;
  const auto opened = opener.open(opener.folder.write("a", std::string(1000, 'x')), as("raw"));
  REQUIRE(opened);
  CHECK(opened->disk->size() == 1024);
  REQUIRE(opened->warnings.size() == 1);
  CHECK(opened->warnings[0].find("size 1000 is no multiple of 512") != std::string::npos);
}

TEST_CASE("an error of a reader names the image") {
  Opener opener;
  for (const char* format : {"qcow2", "vpc", "vmdk"}) {
    const auto opened = opener.open(opener.folder.write("a", "x"), as(format));
    REQUIRE(!opened);
    CHECK(opened.error().file == opener.folder.path("a"));
  }
}

TEST_CASE("a snapshot is refused where the format has none, and looked for where it has") {
  Opener opener;
  for (const Format& format : formats()) {
    OpenOptions options = as(std::string(format.name));
    options.image.snapshot = "first";
    const auto opened = opener.open(opener.folder.write("a", "x"), options);
    REQUIRE(!opened);
    const std::string line = opened.error().to_string();
    CAPTURE(line);
    CHECK((line.find("no internal snapshots (-l)") != std::string::npos) == !format.snapshots);
    CHECK((opened.error().kind == ErrorKind::kUnsupported) == !format.snapshots);
    CHECK(opened.error().file == opener.folder.path("a"));
  }
  CHECK(find_format("qcow2")->snapshots);
  CHECK_FALSE(find_format("raw")->snapshots);
}

TEST_CASE("warnings never hold control bytes, whatever a file is called") {
  Opener opener;
  const auto opened = opener.open(opener.folder.write("a\n\x1b[2J", std::string(1000, 'x')));
  REQUIRE(opened);
  CHECK(opened->warnings.size() == 2);
  for (const std::string& warning : opened->warnings) {
    CHECK(warning.find('\n') == std::string::npos);
    CHECK(warning.find('\x1b') == std::string::npos);
  }
}

TEST_CASE("a file that is open already is served as it is") {
  Opener opener;
  const auto source = std::make_shared<MemorySource>(std::vector<std::byte>(512, std::byte{'m'}));
  const auto opened = open_disk(OpenedFile{.source = source, .path = "given"}, as("raw"),
                                opener.confinement, opener.caches);
  REQUIRE(opened);
  std::array<std::byte, 4> out{};
  REQUIRE(opened->disk->read(508, out));
  CHECK(out[3] == std::byte{'m'});
}

TEST_CASE("a disk notices that a file of its chain has changed") {
  Opener opener;
  const std::string path = opener.folder.write("a", std::string(1024, 'x'));
  const auto opened = opener.open(path, as("raw"));
  REQUIRE(opened);
  CHECK(opened->disk->check_unchanged());
  opener.folder.write("a", std::string(2048, 'y'));
  CHECK(!opened->disk->check_unchanged());
}

TEST_CASE("the operator's word on a parent counts, by the child's path or by its name") {
  Opener opener;
  TempFolder elsewhere;
  const std::string parent = elsewhere.write("moved", std::string(65536, 'p'));
  Qcow2Builder image({});
  image.add_extension(0xe2792aca, "raw");  // the backing file's format
  image.set_backing_name("gone");
  const std::string child = opener.folder.write("child", as_text(image.file));
  CHECK(!opener.open(child));
  for (const std::string& stated : {child, std::string("child")}) {
    OpenOptions options;
    options.parents = {{.child = "other", .path = "nowhere"}, {.child = stated, .path = parent}};
    const auto opened = opener.open(child, options);
    REQUIRE(opened);
    REQUIRE(opened->disk->layers().size() == 2);
    CHECK(opened->disk->layers()[1].path == parent);
  }
}

TEST_CASE("--reader libyal refuses what no library reads") {
  Opener opener;
  OpenOptions options = as("raw");
  options.reader = ReaderChoice::kLibyal;
  const auto opened = opener.open(opener.folder.write("a", std::string(1024, 'x')), options);
  REQUIRE(!opened);
  CHECK(opened.error().kind == ErrorKind::kUnsupported);
}

}  // namespace
}  // namespace underlay
