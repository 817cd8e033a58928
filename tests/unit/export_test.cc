#include "server/export.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <filesystem>

#include "io/memory_source.h"
#include "tests/support/qcow2_fixture.h"
#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

namespace fs = std::filesystem;

OpenOptions starting_at(uint64_t start) {
  OpenOptions options;
  options.start = start;
  return options;
}

struct Catalog {
  explicit Catalog(uint64_t start = 0)
      : catalog({.path = folder.path("images"),
                 .description = "of the folder",
                 .open = starting_at(start)},
                files, caches, log) {
    fs::create_directory(folder.path("images"));
  }
  std::string write(const std::string& name, std::string_view content) {
    return folder.write("images/" + name, content);
  }
  ErrorKind error_of(const std::string& name) {
    const auto opened = catalog.open(name);
    REQUIRE(!opened);
    return opened.error().kind;
  }
  std::vector<std::string> names() {
    std::vector<std::string> all;
    for (const ExportDescription& entry : catalog.list()) all.push_back(entry.name);
    return all;
  }
  void add_fixed(const std::string& name) {
    auto opened =
        open_disk(OpenedFile{.source = std::make_shared<MemorySource>(std::vector<std::byte>(1024)),
                             .path = "memory"},
                  OpenOptions{.format = "raw", .backing_format = {}, .image = {}}, files, caches);
    REQUIRE(opened);
    REQUIRE(catalog.add(std::make_shared<Export>(name, "fixed", std::move(opened->disk))));
  }

  TempFolder folder;
  Confinement files;
  Caches caches;
  Log log{"test", false};
  ExportCatalog catalog;
};

char first_byte(const Export& target) {
  std::array<std::byte, 1> out;
  REQUIRE(target.disk().read(0, out));
  return static_cast<char>(out[0]);
}

// A raw image: no header of another format.
std::string raw(char fill, size_t size = 1024) { return std::string(size, fill); }

TEST_CASE("export: fixed ones are found under their names, also the empty one") {
  Catalog c;
  c.add_fixed("");
  c.add_fixed("a/b");
  CHECK(c.catalog.open(""));
  CHECK((*c.catalog.open("a/b"))->describe().description == "fixed");
  CHECK(c.error_of("a") == ErrorKind::kNotFound);
}

TEST_CASE("export: its content tells files, offset and snapshot apart") {
  const Catalog all;
  const std::string path = all.folder.write("image", raw('a', 2048));
  const std::string other = all.folder.write("other", raw('a', 2048));
  Caches caches;
  const auto content = [&](const std::string& of, uint64_t start, std::string_view snapshot) {
    OpenOptions options = starting_at(start);
    options.format = "raw";
    auto opened = open_disk(of, options, all.files, caches);
    REQUIRE(opened);
    return Export("disk", "", std::move(opened->disk), snapshot).content();
  };
  CHECK(content(path, 0, "") == content(path, 0, ""));
  CHECK(content(path, 0, "") != content(other, 0, ""));
  CHECK(content(path, 0, "") != content(path, 0, "one"));
  // Both have 2048 bytes for clients.
  CHECK(content(path, 1, "").size == content(path, 2, "").size);
  CHECK(content(path, 1, "") != content(path, 2, ""));
}

TEST_CASE("export: those with clients are told from those without") {
  Catalog all;
  all.add_fixed("used");
  all.add_fixed("idle");
  all.write("image", raw('a'));
  CHECK(all.catalog.with_clients().empty());
  auto fixed = all.catalog.open("used");
  auto opened = all.catalog.open("image");
  REQUIRE(fixed);
  REQUIRE(opened);
  CHECK(all.catalog.with_clients().size() == 2);
  fixed = fail(ErrorKind::kNotFound, "gone");
  opened = fail(ErrorKind::kNotFound, "gone");
  CHECK(all.catalog.with_clients().empty());
}

TEST_CASE("export: a fixed one is replaced, and who has the old one keeps it") {
  Catalog all;
  all.add_fixed("disk");
  auto old = all.catalog.open("disk");
  REQUIRE(old);
  auto opened = open_disk(all.folder.write("new", raw('n')),
                          OpenOptions{.format = "raw", .backing_format = {}, .image = {}},
                          all.files, all.caches);
  REQUIRE(opened);
  all.catalog.replace(std::make_shared<Export>("disk", "", std::move(opened->disk)));
  CHECK(first_byte(**all.catalog.open("disk")) == 'n');
  CHECK(first_byte(**old) == 0);
  REQUIRE(all.catalog.opened().size() == 2);
  CHECK(all.catalog.opened()[0].hidden != all.catalog.opened()[1].hidden);
  CHECK(all.catalog.with_clients().size() == 1);
  old = fail(ErrorKind::kNotFound, "gone");
  CHECK(all.catalog.opened().size() == 1);
}

TEST_CASE("export: one is removed, and its name is free") {
  Catalog all;
  all.add_fixed("disk");
  CHECK(*all.catalog.remove("disk", ExportCatalog::WhenUsed::kStay) == 0);
  CHECK(all.error_of("disk") == ErrorKind::kNotFound);
  CHECK(all.names().empty());
  all.add_fixed("disk");
  CHECK(all.catalog.open("disk"));
  all.write("of-the-folder", raw('f'));
  const auto of_folder = all.catalog.remove("of-the-folder", ExportCatalog::WhenUsed::kHide);
  REQUIRE(!of_folder);
  CHECK(of_folder.error().kind == ErrorKind::kNotFound);
}

TEST_CASE("export: without a folder there are only the fixed ones") {
  const TempFolder folder;
  const Confinement files;
  Caches caches;
  Log log("test", false);
  ExportCatalog catalog({}, files, caches, log);
  const auto opened = catalog.open("etc");
  REQUIRE(!opened);
  CHECK(opened.error().kind == ErrorKind::kNotFound);
  CHECK(catalog.list().empty());
}

TEST_CASE("export: an image of the folder is opened under its file name") {
  Catalog c;
  c.write("one.img", raw('1'));
  const auto opened = c.catalog.open("one.img");
  REQUIRE(opened);
  CHECK((*opened)->size() == 1024);
  CHECK((*opened)->describe().description == "of the folder");
  CHECK(first_byte(**opened) == '1');
}

TEST_CASE("export: a fixed one wins over a file of its name") {
  Catalog c;
  c.write("one", raw('1'));
  c.add_fixed("one");
  CHECK(first_byte(**c.catalog.open("one")) == '\0');
  CHECK(c.names() == std::vector<std::string>{"one"});
}

TEST_CASE("export: names that are no plain file name do not exist, whatever they lead to") {
  Catalog c;
  c.folder.write("secret", raw('s'));
  c.write("sub/inner", raw('i'));
  c.write(".hidden", raw('h'));
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("../secret"),
        std::string("sub/inner"), std::string("sub/../../secret"), std::string(".hidden"),
        c.folder.path("secret"), std::string("/etc/passwd"), std::string("none"),
        std::string(300, 'n'), std::string(4096, 'n')}) {
    CAPTURE(name.substr(0, 40));
    CHECK(c.error_of(name) == ErrorKind::kNotFound);
  }
}

TEST_CASE("export: what is there but is no image of the folder is refused") {
  Catalog c;
  c.folder.write("secret", raw('s'));
  fs::create_symlink(c.folder.path("secret"), c.folder.path("images/absolute"));
  fs::create_symlink("../secret", c.folder.path("images/relative"));
  REQUIRE(::mkfifo(c.folder.path("images/fifo").c_str(), 0600) == 0);
  c.write("sub/inner", raw('i'));
  for (const char* name : {"absolute", "relative", "fifo", "sub"}) {
    CAPTURE(name);
    CHECK(c.error_of(name) == ErrorKind::kDenied);
  }
}

TEST_CASE("export: a link within the folder is followed") {
  Catalog c;
  c.write("one", raw('1'));
  fs::create_symlink("one", c.folder.path("images/link"));
  CHECK(first_byte(**c.catalog.open("link")) == '1');
}

TEST_CASE("export: a damaged image in the folder is its own failure, not that of others") {
  Catalog c;
  c.write("bad", std::string("QFI\xfb\0\0\0\x09", 8) + raw('b', 4096));
  c.write("good", raw('g'));
  CHECK(c.error_of("bad") != ErrorKind::kNotFound);
  CHECK(c.catalog.open("good"));
}

TEST_CASE("export: an image whose backing file is missing exists, and cannot be served") {
  Catalog c;
  Qcow2Builder builder({});
  builder.add_extension(0xe2792aca, "raw");
  builder.set_backing_name("gone");
  c.write("overlay", as_text(builder.file));
  CHECK(c.error_of("overlay") != ErrorKind::kNotFound);
}

TEST_CASE("export: the offset holds for every image of the folder, and lies within it") {
  Catalog c(1024);
  c.write("long", raw('a') + raw('b'));
  c.write("exact", raw('a'));
  c.write("short", raw('a', 512));
  CHECK(first_byte(**c.catalog.open("long")) == 'b');
  CHECK((*c.catalog.open("exact"))->size() == 0);
  CHECK(c.error_of("short") == ErrorKind::kLimit);
}

TEST_CASE("export: clients of one image share it while one of them lives") {
  Catalog c;
  c.write("one", raw('1'));
  auto first = *c.catalog.open("one");
  const auto* disk = &first->disk();
  CHECK((*c.catalog.open("one")).get() == first.get());
  CHECK(&(*c.catalog.open("one"))->disk() == disk);
  const std::weak_ptr<Export> watched = first;
  first.reset();
  CHECK(watched.expired());
  CHECK(c.catalog.open("one"));
}

TEST_CASE("export: a file that was replaced is opened anew, and the old one served on") {
  Catalog c;
  c.write("one", raw('1'));
  const auto old = *c.catalog.open("one");
  c.write("new", raw('2'));
  fs::rename(c.folder.path("images/new"), c.folder.path("images/one"));
  const auto now = *c.catalog.open("one");
  CHECK(first_byte(*old) == '1');
  CHECK(first_byte(*now) == '2');
  c.catalog.check_unchanged();
  CHECK(!old->changed());
  CHECK(!now->changed());
}

TEST_CASE("export: a file that was written to is noticed, and opened anew for new clients") {
  Catalog c;
  c.write("one", raw('1'));
  const auto old = *c.catalog.open("one");
  c.catalog.check_unchanged();
  CHECK(!old->changed());
  c.write("one", raw('2', 2048));
  c.catalog.check_unchanged();
  CHECK(old->changed());
  const auto now = *c.catalog.open("one");
  CHECK(now.get() != old.get());
  CHECK(now->size() == 2048);
}

TEST_CASE("export: every export in use is looked at for changes, also when its name was reused") {
  Catalog c;
  const std::string path = c.write("one", raw('1'));
  const auto old = *c.catalog.open("one");
  fs::rename(path, c.folder.path("moved"));
  c.write("one", raw('2'));
  const auto now = *c.catalog.open("one");
  c.folder.write("moved", raw('3', 4096));
  c.catalog.check_unchanged();
  CHECK(old->changed());
  CHECK(!now->changed());
}

TEST_CASE("export: clients that open one image at the same time share it") {
  Catalog c;
  c.write("one", raw('1', 1 << 20));
  std::array<std::shared_ptr<Export>, 8> opened;
  std::vector<std::thread> threads;
  for (auto& slot : opened) {
    threads.emplace_back([&] { slot = c.catalog.open("one").value_or(nullptr); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& slot : opened) CHECK(slot == opened[0]);
}

TEST_CASE("export: the list names the files of the folder in order, without hidden ones") {
  Catalog c;
  c.write("b", raw('b'));
  c.write("a", raw('a'));
  c.write(".hidden", raw('h'));
  c.write("sub/inner", raw('i'));
  REQUIRE(::mkfifo(c.folder.path("images/fifo").c_str(), 0600) == 0);
  c.add_fixed("fixed");
  CHECK(c.names() == std::vector<std::string>{"fixed", "a", "b"});
}

}  // namespace
}  // namespace underlay
