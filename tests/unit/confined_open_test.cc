#include "io/confined_open.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <climits>

#include "io/unique_fd.h"
#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

namespace fs = std::filesystem;

// Folders: images/ (the naming image's), images/sub/, outside/.
struct World {
  World() {
    folder.write("images/top.img", "top");
    folder.write("images/base.img", "base");
    folder.write("images/sub/deep.img", "deep");
    folder.write("outside/secret.img", "secret");
    folder.write("images-too/near.img", "near");
  }
  std::string in_images(std::string_view name) const {
    return folder.path("images/" + std::string(name));
  }
  Result<OpenedFile> open(std::string_view name, const std::vector<std::string>& allow = {}) const {
    return (*Confinement::create(allow)).open(in_images("top.img"), name);
  }

  TempFolder folder;
};

std::string content(const Result<OpenedFile>& opened) {
  if (!opened) return "refused: " + opened.error().to_string();
  std::string text(opened->source->size(), '?');
  REQUIRE(opened->source->read_at(0, std::as_writable_bytes(std::span(text))));
  return text;
}

ErrorKind refusal(const Result<OpenedFile>& opened) {
  REQUIRE(!opened);
  return opened.error().kind;
}

TEST_CASE("relative names start in the naming image's folder, not the working directory") {
  const World world;
  CHECK(content(world.open("base.img")) == "base");
  CHECK(content(world.open("./sub/../base.img")) == "base");
  const auto deep = world.open("sub/deep.img");
  CHECK(content(deep) == "deep");
  CHECK(deep->path == world.in_images("sub/deep.img"));
  CHECK(deep->source->name() == deep->path);
}

TEST_CASE("a naming image without a folder in its path lies in the working directory") {
  const World world;
  const fs::path before = fs::current_path();
  fs::current_path(world.folder.path("images"));
  const auto opened = Confinement().open(*with_resolved_folder("top.img"), "base.img");
  fs::current_path(before);
  CHECK(content(opened) == "base");
}

TEST_CASE("absolute names are allowed when they lead beneath the folder") {
  const World world;
  CHECK(content(world.open(world.in_images("base.img"))) == "base");
  CHECK(refusal(world.open(world.folder.path("outside/secret.img"))) == ErrorKind::kDenied);
  CHECK(refusal(world.open("/etc/passwd")) == ErrorKind::kDenied);
}

TEST_CASE("a folder whose name only begins alike is outside") {
  const World world;
  CHECK(refusal(world.open("../images-too/near.img")) == ErrorKind::kDenied);
  CHECK(refusal(world.open(world.folder.path("images-too/near.img"))) == ErrorKind::kDenied);
}

TEST_CASE("names with .. are allowed only when they come back") {
  const World world;
  CHECK(content(world.open("../images/base.img")) == "base");
  CHECK(refusal(world.open("../outside/secret.img")) == ErrorKind::kDenied);
  CHECK(refusal(world.open("sub/../../outside/secret.img")) == ErrorKind::kDenied);
}

TEST_CASE("symbolic links count by where they lead") {
  const World world;
  fs::create_symlink("base.img", world.in_images("inside"));
  fs::create_symlink(world.folder.path("outside/secret.img"), world.in_images("leads-out"));
  fs::create_symlink("../outside/secret.img", world.in_images("leads-out-too"));
  CHECK(content(world.open("inside")) == "base");
  CHECK(refusal(world.open("leads-out")) == ErrorKind::kDenied);
  CHECK(refusal(world.open("leads-out-too")) == ErrorKind::kDenied);
}

TEST_CASE("symbolic links to folders count by where they lead") {
  const World world;
  fs::create_directory_symlink("sub", world.in_images("inside"));
  fs::create_directory_symlink("../outside", world.in_images("out"));
  CHECK(content(world.open("inside/deep.img")) == "deep");
  CHECK(refusal(world.open("out/secret.img")) == ErrorKind::kDenied);
}

TEST_CASE("an image reached through a linked folder finds its neighbours") {
  const World world;
  fs::create_directory_symlink("images", world.folder.path("alias"));
  const std::string top = *with_resolved_folder(world.folder.path("alias/top.img"));
  CHECK(top == world.in_images("top.img"));
  CHECK(content(Confinement().open(top, "base.img")) == "base");
}

TEST_CASE("a link planted in the place of an image's folder leads nowhere") {
  const World world;
  const auto deep = world.open("sub/deep.img");
  REQUIRE(deep);
  fs::rename(world.in_images("sub"), world.in_images("moved"));
  fs::create_directory_symlink("../outside", world.in_images("sub"));
  CHECK(!Confinement().open(deep->path, "secret.img"));
}

TEST_CASE("loops of symbolic links are refused") {
  const World world;
  fs::create_symlink("b", world.in_images("a"));
  fs::create_symlink("a", world.in_images("b"));
  CHECK(!world.open("a"));
}

TEST_CASE("what is missing is not found, and the error names the image and the name") {
  const World world;
  const auto opened = world.open("gone.img");
  CHECK(refusal(opened) == ErrorKind::kNotFound);
  CHECK(opened.error().file == world.in_images("top.img"));
  CHECK(opened.error().to_string().find("\"gone.img\"") != std::string::npos);
  CHECK(refusal(world.open("base.img/below")) == ErrorKind::kNotFound);
}

TEST_CASE("names that are no file names are malformed") {
  const World world;
  CHECK(refusal(world.open("")) == ErrorKind::kMalformed);
  CHECK(refusal(world.open(std::string_view("base.img\0.txt", 13))) == ErrorKind::kMalformed);
  CHECK(refusal(world.open(std::string(PATH_MAX, 'x'))) == ErrorKind::kMalformed);
  CHECK(!world.open(std::string(PATH_MAX - 1, 'x')));  // fits alone, not behind the folder
}

TEST_CASE("protocol prefixes are names like any other, not followed") {
  const World world;
  for (const char* name : {"json:{\"driver\":\"file\"}", "nbd://localhost", "file:base.img"}) {
    CHECK(refusal(world.open(name)) == ErrorKind::kNotFound);
  }
}

TEST_CASE("folders, FIFOs, sockets and devices are denied without hanging") {
  const World world;
  REQUIRE(::mkfifo(world.in_images("fifo").c_str(), 0600) == 0);
  const UniqueFd server(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  world.in_images("socket").copy(address.sun_path, sizeof(address.sun_path) - 1);
  REQUIRE(::bind(server.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  for (const char* name : {"sub", "fifo", "socket", ".", ".."}) {
    CAPTURE(name);
    CHECK(refusal(world.open(name)) == ErrorKind::kDenied);
  }
  CHECK(refusal(world.open("/dev/null", {"/dev"})) == ErrorKind::kDenied);
  // Only root can make a device node.
  if (::mknod(world.in_images("null").c_str(), S_IFCHR | 0600, makedev(1, 3)) == 0) {
    CHECK(refusal(world.open("null")) == ErrorKind::kDenied);
  }
}

TEST_CASE("the refusal says what allows it") {
  const World world;
  const auto opened = world.open("../outside/secret.img");
  CHECK(refusal(opened) == ErrorKind::kDenied);
  CHECK(opened.error().message.find("--allow-path") != std::string::npos);
}

TEST_CASE("--allow-path opens what lies beneath it, and nothing else") {
  const World world;
  const std::vector<std::string> allow = {world.folder.path("outside")};
  CHECK(content(world.open("../outside/secret.img", allow)) == "secret");
  CHECK(content(world.open(world.folder.path("outside/secret.img"), allow)) == "secret");
  CHECK(content(world.open("base.img", allow)) == "base");
  CHECK(refusal(world.open("../images-too/near.img", allow)) == ErrorKind::kDenied);
  CHECK(refusal(world.open("../outside", allow)) == ErrorKind::kDenied);
  CHECK(content(world.open("../images-too/near.img", {"/"})) == "near");
}

TEST_CASE("--allow-path may be given through a symbolic link") {
  const World world;
  fs::create_directory_symlink("outside", world.folder.path("alias"));
  CHECK(content(world.open("../outside/secret.img", {world.folder.path("alias")})) == "secret");
}

TEST_CASE("--allow-path must be an existing folder") {
  const World world;
  CHECK(!Confinement::create({world.folder.path("nothing")}));
  const auto file = Confinement::create({world.in_images("top.img")});
  REQUIRE(!file);
  CHECK(file.error().kind == ErrorKind::kUsage);
}

using Kind = NamedPlace::Kind;

NamedPlace located(const World& world, const std::string& name) {
  const auto place = locate_named_file(world.in_images("top.img"), name);
  REQUIRE(place);
  return *place;
}

TEST_CASE("where a name leads is found as it would be opened") {
  const World world;
  fs::create_symlink("base.img", world.in_images("link"));
  fs::create_symlink("../outside/secret.img", world.in_images("out"));
  fs::create_directory_symlink("../outside", world.in_images("folder"));
  for (const char* name : {"base.img", "./sub/../base.img", "link", "sub/deep.img"}) {
    CAPTURE(name);
    const NamedPlace place = located(world, name);
    CHECK(place.kind == Kind::kFile);
    CHECK(place.inside);
    CHECK(place.size == 4);
    CHECK(place.identity == world.open(name)->source->identity());
  }
  CHECK(located(world, "link").path == world.in_images("base.img"));
  for (const char* name : {"out", "../outside/secret.img", "folder/secret.img", "/etc/passwd",
                           "../images-too/near.img"}) {
    CAPTURE(name);
    const NamedPlace place = located(world, name);
    CHECK(place.kind == Kind::kFile);
    CHECK_FALSE(place.inside);
  }
  CHECK(located(world, "folder/secret.img").path == world.folder.path("outside/secret.img"));
}

TEST_CASE("where a name leads is also found when nothing is there") {
  const World world;
  fs::create_symlink("../outside/gone", world.in_images("out"));
  fs::create_symlink("gone", world.in_images("in"));
  fs::create_symlink("loop", world.in_images("loop"));
  for (const char* name : {"gone", "sub/gone/../gone", "in", "base.img/below", "loop"}) {
    CAPTURE(name);
    CHECK(located(world, name).kind == Kind::kMissing);
    CHECK(located(world, name).inside);
  }
  for (const char* name : {"out", "../gone", "/gone/gone", "gone/../../gone"}) {
    CAPTURE(name);
    CHECK(located(world, name).kind == Kind::kMissing);
    CHECK_FALSE(located(world, name).inside);
  }
  CHECK(located(world, "out").path == world.folder.path("outside/gone"));
}

TEST_CASE("what is no regular file is told, and not opened") {
  const World world;
  REQUIRE(::mkfifo(world.in_images("fifo").c_str(), 0600) == 0);
  CHECK(located(world, "fifo").kind == Kind::kOther);
  CHECK(located(world, "sub").kind == Kind::kOther);
  CHECK(located(world, "/dev/null").kind == Kind::kDevice);
  for (const std::string& name :
       {std::string(), std::string("a\0b", 3), std::string(PATH_MAX, 'a')}) {
    const auto place = locate_named_file(world.in_images("top.img"), name);
    REQUIRE_FALSE(place);
    CHECK(place.error().kind == ErrorKind::kMalformed);
  }
}

}  // namespace
}  // namespace underlay
