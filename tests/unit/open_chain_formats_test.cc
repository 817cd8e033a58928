// Chains of real images on disk: loops, depth, formats that are not stated, identities, trust.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "formats/open_chain.h"
#include "tests/support/qcow2_builder.h"
#include "tests/support/temp_folder.h"
#include "tests/support/vhd_disks.h"
#include "tests/support/vmdk_builder.h"

namespace underlay {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kBackingFormat = 0xe2792aca;  // header extension "backing file format name"

struct Chain {
  // An empty qcow2 of 64 KiB on top of `backing`; `format` "" is not stated.
  std::string overlay(const std::string& name, std::string_view backing,
                      std::string_view format = "qcow2") {
    Qcow2Builder builder({});
    if (!format.empty()) builder.add_extension(kBackingFormat, format);
    if (!backing.empty()) builder.set_backing_name(backing);
    return folder.write(name, as_text(builder.file));
  }
  // A qcow2 without a parent, one cluster of data in it.
  std::string base(const std::string& name) {
    Qcow2Builder builder({});
    builder.put_data(0, 1);
    content.assign(builder.truth.begin(), builder.truth.begin() + 512);
    return folder.write(name, as_text(builder.file));
  }
  void allow(const std::string& path) {
    auto allowing = Confinement::create({path});
    REQUIRE(allowing);
    files = *std::move(allowing);
  }
  Result<OpenedDisk> open(const std::string& name, const std::string& backing_format = {}) {
    OpenOptions options;
    options.backing_format = backing_format;
    return open_disk(folder.path(name), options, files, caches);
  }
  // The refusal, whose line must name the file `blamed` and hold `words`.
  ErrorKind refusal(const std::string& name, const std::string& blamed, std::string_view words,
                    const std::string& backing_format = {}) {
    const auto opened = open(name, backing_format);
    REQUIRE(!opened);
    const std::string line = opened.error().to_string();
    CAPTURE(line);
    CHECK(line.starts_with(folder.path(blamed) + ": "));
    CHECK(line.find(words) != std::string::npos);
    CHECK(line.find('\n') == std::string::npos);
    return opened.error().kind;
  }
  // The first sector of a disk that opens.
  std::vector<std::byte> read(const Result<OpenedDisk>& opened) {
    REQUIRE(opened);
    std::vector<std::byte> out(512);
    REQUIRE(opened->disk->read(0, out));
    return out;
  }

  TempFolder folder;
  Confinement files;
  Caches caches;
  std::vector<std::byte> content;
};

TEST_CASE("chain: a chain that is its own parent is refused, however the file is named") {
  Chain c;
  c.overlay("self", "self");
  CHECK(c.refusal("self", "self", "twice in its own chain") == ErrorKind::kMalformed);

  c.overlay("a", "b");
  c.overlay("b", "a");
  CHECK(c.refusal("a", "a", "twice in its own chain") == ErrorKind::kMalformed);

  c.overlay("c", "symlink");
  fs::create_symlink("c", c.folder.path("symlink"));
  CHECK(c.refusal("c", "symlink", "twice in its own chain") == ErrorKind::kMalformed);

  c.overlay("d", "sub/../hardlink");
  fs::create_directory(c.folder.path("sub"));
  fs::create_hard_link(c.folder.path("d"), c.folder.path("hardlink"));
  CHECK(c.refusal("d", "hardlink", "twice in its own chain") == ErrorKind::kMalformed);
}

TEST_CASE("chain: as many images as the limit allows are opened, one more is refused") {
  Chain c;
  c.base("0");
  for (size_t i = 1; i <= kMaxChainDepth; ++i) {
    c.overlay(std::to_string(i), std::to_string(i - 1));
  }
  const auto longest = c.open(std::to_string(kMaxChainDepth - 1));
  CHECK(c.read(longest) == c.content);
  CHECK(longest->disk->layers().size() == kMaxChainDepth);
  const auto extent = longest->disk->map(0, 512, MapFor::kRead);
  REQUIRE(extent);
  CHECK(extent->depth == kMaxChainDepth);
  const std::string too_long = std::to_string(kMaxChainDepth);
  CHECK(c.refusal(too_long, too_long, "more than 256 images") == ErrorKind::kLimit);
}

TEST_CASE("chain: a stated raw parent is raw, whatever a guest has written into it") {
  Chain c;
  c.base("inner");
  c.overlay("top", "inner", "raw");
  const auto opened = c.open("top");
  CHECK(as_text(c.read(opened)).starts_with("QFI\xfb"));
  CHECK(opened->warnings.empty());
}

TEST_CASE("chain: an unstated parent that could be raw is refused, with the ways out") {
  Chain c;
  c.folder.write("flat", std::string(64 << 10, 'f'));
  c.overlay("top", "flat", "");
  CHECK(c.refusal("top", "top", "backing.driver=FORMAT") == ErrorKind::kDenied);
  CHECK(c.refusal("top", "top", "qemu-img rebase -u -F") == ErrorKind::kDenied);
  CHECK(as_text(c.read(c.open("top", "raw"))) == std::string(512, 'f'));
}

TEST_CASE("chain: an unstated parent with a damaged header is refused") {
  Chain c;
  c.folder.write("damaged", std::string("QFI\xfb\0\0\0\x09", 8) + std::string(4096, 'd'));
  c.overlay("top", "damaged", "");
  CHECK(c.refusal("top", "top", "does not state the format") == ErrorKind::kDenied);
}

TEST_CASE("chain: an unstated qcow2 parent that stands alone is accepted with a warning") {
  Chain c;
  c.base("base");
  c.overlay("top", "base", "");
  const auto opened = c.open("top");
  CHECK(c.read(opened) == c.content);
  REQUIRE(opened->warnings.size() == 1);
  CHECK(opened->warnings[0].find("does not state the format of its backing file \"base\"") !=
        std::string::npos);
  CHECK(opened->warnings[0].find("guessed qcow2") != std::string::npos);
}

TEST_CASE("chain: an unstated parent that names further files is refused: a guest may have") {
  Chain c;
  c.base("secret");
  c.overlay("middle", "secret");
  c.overlay("top", "middle", "");
  CHECK(c.refusal("top", "top", "names further files") == ErrorKind::kDenied);
  CHECK(c.read(c.open("top", "qcow2")) == c.content);
}

TEST_CASE("chain: the operator's format is for the top image's parent only") {
  Chain c;
  c.folder.write("flat", std::string(64 << 10, 'f'));
  c.overlay("middle", "flat", "");
  c.overlay("top", "middle");
  CHECK(c.refusal("top", "middle", "could be raw", "raw") == ErrorKind::kDenied);
}

TEST_CASE("chain: what an image states wins over the operator's word") {
  Chain c;
  c.base("base");
  c.overlay("top", "base", "qcow2");
  CHECK(c.read(c.open("top", "raw")) == c.content);
}

TEST_CASE("chain: a wrong or unknown stated format is refused") {
  Chain c;
  c.base("base");
  c.overlay("wrong", "base", "vmdk");
  CHECK(c.refusal("wrong", "base", "damaged") != ErrorKind::kIo);
  c.overlay("unknown", "base", "no such\nthing");
  CHECK(c.refusal("unknown", "unknown", "\"no such\\x0athing\" is not one of") ==
        ErrorKind::kUnsupported);
}

TEST_CASE("chain: a backing file outside the folder needs --allow-path") {
  Chain c;
  c.base("elsewhere/base");
  c.overlay("images/relative", "../elsewhere/base");
  c.overlay("images/absolute", c.folder.path("elsewhere/base"));
  c.overlay("images/link", "symlink");
  fs::create_symlink("../elsewhere/base", c.folder.path("images/symlink"));
  for (const std::string name : {"images/relative", "images/absolute", "images/link"}) {
    c.files = Confinement();
    CHECK(c.refusal(name, name, "--allow-path") == ErrorKind::kDenied);
    c.allow(c.folder.path("elsewhere"));
    CHECK(c.read(c.open(name)) == c.content);
  }
}

TEST_CASE("chain: a backing file that is no file is refused at once, also where allowed") {
  Chain c;
  REQUIRE(::mkfifo(c.folder.path("fifo").c_str(), 0600) == 0);
  fs::create_directory(c.folder.path("folder"));
  for (const std::string name : {"fifo", "folder", "/dev/zero"}) {
    c.overlay("top", name, "raw");
    c.files = Confinement();
    CHECK(c.refusal("top", "top", "--allow-path") == ErrorKind::kDenied);
    c.allow(name == "/dev/zero" ? "/dev" : c.folder.path());
    CHECK(c.refusal("top", "top", "is no regular file") == ErrorKind::kDenied);
  }
}

TEST_CASE("chain: a protocol in a backing file's name is not followed") {
  Chain c;
  for (const std::string name :
       {"nbd://localhost/x", "json:{\"driver\":\"raw\"}", "fat:rw:/tmp", "host_device:/dev/sda"}) {
    c.overlay("top", name, "raw");
    const auto opened = c.open("top");
    REQUIRE(!opened);
    CHECK(opened.error().file == c.folder.path("top"));
  }
}

TEST_CASE("chain: a missing parent names the child and the parent's name") {
  Chain c;
  c.overlay("top", "gone");
  CHECK(c.refusal("top", "top", "\"gone\"") == ErrorKind::kIo);
}

TEST_CASE("chain: a missing parent's line names the option that says where it is") {
  Chain c;
  c.overlay("top", "gone");
  CHECK(c.refusal("top", "top", "--parent top=PATH") == ErrorKind::kIo);
  vhd::test::VhdBuilder child = vhd::test::differencing();
  child.parent_unicode_name = vhd::test::utf16be("old.vhd");
  c.folder.write("child.vhd", as_text(child.build()));
  CHECK(c.refusal("child.vhd", "child.vhd", "by any of its 2 names (--parent child.vhd=PATH") ==
        ErrorKind::kIo);
  child.parent_unicode_name.clear();
  child.locators.clear();
  c.folder.write("child.vhd", as_text(child.build()));
  CHECK(c.refusal("child.vhd", "child.vhd", "does not name its parent; --parent child.vhd=PATH") ==
        ErrorKind::kMalformed);
}

TEST_CASE("chain: a parent that --parent names is checked as one that the image names") {
  Chain c;
  TempFolder elsewhere;
  vhd::test::VhdBuilder parent = vhd::test::dynamic();
  const std::string child = c.folder.write("child.vhd", as_text(vhd::test::differencing().build()));
  OpenOptions options;
  const auto opened = [&](const std::string& path) {
    options.parents = {{.child = "child.vhd", .path = path}};
    return open_disk(child, options, c.files, c.caches);
  };
  CHECK(opened(elsewhere.write("moved.vhd", as_text(parent.build()))));

  const auto missing = opened(elsewhere.path("none"));
  REQUIRE_FALSE(missing);
  CHECK(missing.error().kind == ErrorKind::kIo);
  CHECK(missing.error().to_string().find("--parent: ") != std::string::npos);

  parent.id = std::byte{0x77};
  const auto wrong = opened(elsewhere.write("wrong.vhd", as_text(parent.build())));
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().kind == ErrorKind::kMalformed);
  for (const char* id :
       {"77777777-7777-7777-7777-777777777777", "11111111-1111-1111-1111-111111111111"}) {
    CHECK(wrong.error().message.find(id) != std::string::npos);
  }
}

TEST_CASE("chain: a vhd whose parent has another unique id is refused") {
  Chain c;
  vhd::test::VhdBuilder child = vhd::test::differencing();
  vhd::test::VhdBuilder parent = vhd::test::dynamic();
  c.folder.write("child.vhd", as_text(child.build()));
  c.folder.write("parent.vhd", as_text(parent.build()));
  CHECK(c.open("child.vhd"));
  parent.id = std::byte{0x77};
  c.folder.write("parent.vhd", as_text(parent.build()));
  CHECK(c.refusal("child.vhd", "child.vhd", "is another image") == ErrorKind::kMalformed);
}

TEST_CASE("chain: a vmdk whose parent has another CID is refused") {
  Chain c;
  const auto flat = [&](const std::string& name, const std::vector<std::string>& ids) {
    std::vector<std::string> lines = ids;
    lines.push_back("RW 8 FLAT \"" + name + "-flat\" 0");
    c.folder.write(name + "-flat", std::string(4096, 'v'));
    c.folder.write(name, vmdk_test::vmdk_text("monolithicFlat", lines));
  };
  flat("parent", {"CID=0000abcd", "parentCID=ffffffff"});
  flat("child", {"CID=00000001", "parentCID=0000abcd", "parentFileNameHint=\"parent\""});
  CHECK(c.open("child"));
  flat("parent", {"CID=0000abce", "parentCID=ffffffff"});
  CHECK(c.refusal("child", "child", "has identity 0000abce, not 0000abcd") ==
        ErrorKind::kMalformed);
}

}  // namespace
}  // namespace underlay
