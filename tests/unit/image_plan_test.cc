#include "tools/thin/image_plan.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "tests/support/qcow2_builder.h"
#include "tests/support/tar_builder.h"
#include "tests/support/temp_folder.h"
#include "tools/thin/file_stamp.h"
#include "tools/thin/image_choice.h"
#include "tools/thin/plan_message.h"

namespace underlay::thin {
namespace {

namespace fs = std::filesystem;
using Kind = DirectRun::Kind;

constexpr uint32_t kBackingFormat = 0xe2792aca;  // header extension

struct World {
  // Another user reads the images, where there is one for it.
  World() { fs::permissions(folder.path(), fs::perms(0755)); }

  std::string write(std::string_view name, const Qcow2Builder& builder) const {
    return folder.write(name, as_text(builder.file));
  }
  Result<ImagePlan> plan(std::string_view name, std::string format = "",
                         PlanFor purpose = PlanFor::kDirectMap) const {
    return plan_image({.location = folder.path(name), .format = std::move(format)}, purpose);
  }
  std::string refusal(std::string_view name) const {
    const auto planned = plan(name);
    return planned ? "planned" : planned.error().to_string();
  }
  TempFolder folder;
};

Qcow2Builder child_of(std::string_view parent) {
  Qcow2Builder builder({.size = 8 << 9});
  builder.add_extension(kBackingFormat, "qcow2");
  builder.set_backing_name(parent);
  builder.put_data(0, 1);
  return builder;
}

ImageRecord record_of(const ImagePlan& plan) {
  ImageRecord image;
  image.location = plan.location;
  image.format = plan.format;
  image.size = plan.size;
  image.files = plan.files;
  return image;
}

template <class... Arguments>
std::string changed(const Arguments&... arguments) {
  const auto result = check_unchanged(arguments...);
  return result ? "unchanged" : result.error().to_string();
}

TEST_CASE("a plan has the image's files, its runs, and descriptors that hold the data") {
  const World world;
  Qcow2Builder builder({.size = 8 << 9});
  builder.put_data(1, 5);
  builder.put_compressed(3, 6);
  const std::string path = world.write("image", builder);
  const auto plan = world.plan("image");
  REQUIRE(plan);
  CHECK(plan->location == path);
  CHECK(plan->format == "qcow2");
  CHECK(plan->size == 8 << 9);
  CHECK(plan->files.size() == 1);
  CHECK(plan->files[0].path == path);
  CHECK(plan->files[0].size == builder.file.size());
  REQUIRE(plan->direct);
  CHECK(plan->file_sectors == 1);
  CHECK(plan->server_sectors == 1);
  CHECK(plan->zero_sectors == 6);
  CHECK(plan->reason == "512 bytes compressed");
  CHECK(plan->paths == std::vector<std::string>{path});
  REQUIRE(plan->runs.size() == 5);
  const DirectRun& run = plan->runs[1];
  REQUIRE(run.kind == Kind::kFile);
  Qcow2Builder::Bytes stored(512);
  CHECK(::pread(plan->descriptors[0].get(), stored.data(), stored.size(),
                static_cast<off_t>(run.file_sector * 512)) == 512);
  CHECK(std::equal(stored.begin(), stored.end(), builder.truth.begin() + 512));
  CHECK(allocated_runs(plan->runs) == std::vector<AllocatedRun>{{1, 1}, {3, 1}});
}

TEST_CASE("a plan for stamps alone has no descriptors") {
  const World world;
  world.write("image", Qcow2Builder({}));
  const auto plan = world.plan("image", "", PlanFor::kStamps);
  REQUIRE(plan);
  CHECK_FALSE(plan->direct);
  CHECK(plan->runs.empty());
  CHECK(plan->descriptors.empty());
  CHECK(plan->files.size() == 1);
}

TEST_CASE("raw is never guessed") {
  const World world;
  world.folder.write("image", std::string(1000, 'x'));
  CHECK(world.refusal("image").ends_with(
      "shows no signs of a format: if it is a raw image, say --format raw"));
  const auto plan = world.plan("image", "raw");
  REQUIRE(plan);
  CHECK(plan->size == 1024);
  CHECK(plan->warnings.size() == 1);
  CHECK(plan->server_sectors == 1);  // the tail that no loop device has
  CHECK_FALSE(world.plan("image", "wrong"));
}

TEST_CASE("a link leads to the image that it means now") {
  const World world;
  const std::string path = world.write("image", Qcow2Builder({}));
  fs::create_directory(world.folder.path("sub"));
  fs::create_symlink("../image", world.folder.path("sub/link"));
  const auto plan = world.plan("sub/link");
  REQUIRE(plan);
  CHECK(plan->location == path);
  CHECK(plan->files[0].path == path);
  CHECK(world.refusal("missing").ends_with("No such file or directory"));
}

TEST_CASE("each extent of a chain comes from the file of its layer") {
  const World world;
  Qcow2Builder base({.size = 8 << 9});
  base.put_data(0, 2);
  base.put_data(1, 2);
  const std::string base_path = world.write("base", base);
  const std::string top_path = world.write("top", child_of("base"));
  const auto plan = world.plan("top");
  REQUIRE(plan);
  REQUIRE(plan->files.size() == 2);
  CHECK(plan->files[0].path == top_path);
  CHECK(plan->files[1].path == base_path);
  CHECK(plan->paths == std::vector<std::string>{top_path, base_path});
  CHECK(plan->file_sectors == 2);
}

TEST_CASE("an image that leads out of its folder is refused") {
  const World world;
  world.write("sub/top", child_of("../base"));
  world.write("base", Qcow2Builder({}));
  CHECK(world.refusal("sub/top").find("leads out of the image's folder") != std::string::npos);
  const auto allowed =
      plan_image({.location = world.folder.path("sub/top"), .allow_paths = {world.folder.path()}},
                 PlanFor::kStamps);
  REQUIRE(allowed);
  CHECK(allowed->files.size() == 2);
}

TEST_CASE("an image in an archive is the archive's only disk, or the member that is named") {
  const World world;
  Qcow2Builder one({.size = 8 << 9});
  one.put_data(0, 1);
  Qcow2Builder two({.size = 16 << 9});
  TarBuilder archive;
  archive.add("one.qcow2", as_text(one.file));
  world.folder.write("single.tar", as_text(archive.build()));
  archive.add("in/two.qcow2", as_text(two.file));
  world.folder.write("both.tar", as_text(archive.build()));

  const auto single = world.plan("single.tar");
  REQUIRE(single);
  CHECK(single->format == "qcow2");
  CHECK(single->size == 8 << 9);
  // Data in the archive is read directly, too.
  CHECK(single->direct);
  CHECK(single->file_sectors == 1);
  const auto named = world.plan("both.tar#in/two.qcow2");
  REQUIRE(named);
  CHECK(named->location == world.folder.path("both.tar#in/two.qcow2"));
  CHECK(named->size == 16 << 9);
  REQUIRE(named->files.size() == 1);
  CHECK(named->files[0].path == world.folder.path("both.tar"));
  CHECK(changed(record_of(*named), *named) == "unchanged");
  CHECK(world.refusal("both.tar").find("one.qcow2") != std::string::npos);
  CHECK(world.refusal("both.tar#three").find("three") != std::string::npos);
}

TEST_CASE("a parent that has moved is opened where the operator says it lies") {
  const World world;
  world.write("sub/top", child_of("gone"));
  world.write("moved", Qcow2Builder({}));
  const std::string top = world.folder.path("sub/top");
  const std::string moved = world.folder.path("moved");
  CHECK(!plan_image({.location = top}, PlanFor::kStamps));
  const auto plan = plan_image({.location = top, .parents = {"top=" + moved}}, PlanFor::kStamps);
  REQUIRE(plan);
  REQUIRE(plan->files.size() == 2);
  CHECK(plan->files[1].path == moved);
}

TEST_CASE("an image whose tables cannot be read has no direct map, and says why") {
  const World world;
  Qcow2Builder builder({.size = 8 << 9});
  builder.put_entry(3, 0x8000'0000'0000'0002);  // a reserved bit
  world.write("image", builder);
  const auto plan = world.plan("image");
  REQUIRE(plan);
  CHECK_FALSE(plan->direct);
  CHECK(plan->runs.empty());
  CHECK(plan->reason.find("image") != std::string::npos);
}

TEST_CASE("an image that changed is noticed, and the message names the difference") {
  const World world;
  const std::string path = world.write("image", Qcow2Builder({}));
  const auto plan = world.plan("image");
  REQUIRE(plan);
  const ImageRecord record = record_of(*plan);
  CHECK(changed(record) == "unchanged");
  CHECK(changed(record, *plan) == "unchanged");

  struct stat before;
  REQUIRE(::stat(path.c_str(), &before) == 0);
  const std::string advice =
      ": put the original back, or 'underlay-thin activate --accept-changed-image'";
  SUBCASE("written to later") {
    const timespec times[2] = {{0, UTIME_OMIT}, {before.st_mtim.tv_sec + 61, 0}};
    REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
    const std::string error = changed(record);
    CHECK(error.starts_with(path + ": changed since volumes were made on it (modified 20"));
    CHECK(error.ends_with(advice));
    CHECK(changed(record, *world.plan("image")) == error);
  }
  SUBCASE("written to within the same second") {
    const long other = before.st_mtim.tv_nsec == 1000 ? 2000 : 1000;
    const timespec times[2] = {{0, UTIME_OMIT}, {before.st_mtim.tv_sec, other}};
    REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
    CHECK(changed(record).find(fmt::format(".{:09}, was ", other)) != std::string::npos);
  }
  SUBCASE("of another size") {
    REQUIRE(::truncate(path.c_str(), before.st_size + 1) == 0);
    CHECK(changed(record) ==
          fmt::format("{}: changed since volumes were made on it ({} bytes, was {}){}", path,
                      before.st_size + 1, before.st_size, advice));
  }
  SUBCASE("a device that must not be opened") {
    ImageRecord other = record;
    other.files[0].path = "/dev/null";
    CHECK(changed(other).starts_with("/dev/null: is neither a file nor a block device"));
  }
  SUBCASE("missing") {
    fs::remove(path);
    CHECK(changed(record) == path + ": is missing, and volumes lie on it: put the original back");
  }
}

TEST_CASE("a link in the chain that leads to another file now is noticed by a new plan") {
  const World world;
  world.write("base1", Qcow2Builder({}));
  world.write("base2", Qcow2Builder({}));
  world.write("top", child_of("base"));
  fs::create_symlink("base1", world.folder.path("base"));
  const auto plan = world.plan("top");
  REQUIRE(plan);
  const ImageRecord record = record_of(*plan);
  fs::remove(world.folder.path("base"));
  fs::create_symlink("base2", world.folder.path("base"));
  const auto other = world.plan("top");
  REQUIRE(other);
  CHECK(changed(record, *other).find("its chain changed since volumes were made on it") !=
        std::string::npos);
}

TEST_CASE("what a name says about the server") {
  CHECK(is_nbd_uri("nbd://host/export"));
  CHECK(is_nbd_uri("nbd+unix:///export?socket=s"));
  CHECK(is_nbd_uri("nbds://host/export"));
  CHECK(is_nbd_uri("nbds+unix:///export?socket=s"));
  CHECK_FALSE(is_nbd_uri("nbd"));
  CHECK_FALSE(is_nbd_uri("/images/nbd://host"));
}

TEST_CASE("an image on a server needs an address that lasts, and has no direct map") {
  ImageArguments arguments;
  arguments.image.location = "https://host/disk.qcow2?signature=secret";
  const auto signed_url = choose_image(Registry(), arguments);
  REQUIRE_FALSE(signed_url);
  CHECK(signed_url.error().kind == ErrorKind::kUsage);
  CHECK(signed_url.error().file == "https://host/disk.qcow2");
  CHECK(signed_url.error().to_string().find("secret") == std::string::npos);
  arguments.image.location = "s3://bucket/disk.qcow2";
  arguments.direct = DirectMode::kAlways;
  CHECK(choose_image(Registry(), arguments).error().kind == ErrorKind::kUsage);
  arguments.direct = DirectMode::kAuto;
  arguments.image.parents = {"disk.qcow2=https://host/base?signature=secret"};
  arguments.image.location = "/nonexistent/disk.qcow2";
  const auto signed_parent = choose_image(Registry(), arguments);
  REQUIRE_FALSE(signed_parent);
  CHECK(signed_parent.error().to_string().find("secret") == std::string::npos);
}

// ---- what a child may answer that was taken over by an image

PlanMessage good_message() {
  return {.format = "qcow2",
          .size = 10 * 512,
          .files = {{.path = "/a", .size = 4096, .mtime_ns = -5}, {.path = "/b"}},
          .warnings = {"careful"},
          .reason = "reason",
          .direct = true,
          .descriptor_files = {1, 0},
          .runs = {{.kind = Kind::kFile, .start = 0, .sectors = 4, .file = 1, .file_sector = 4},
                   {.kind = Kind::kZero, .start = 4, .sectors = 5},
                   {.kind = Kind::kServer, .start = 9, .sectors = 1}}};
}

TEST_CASE("a child's answer may name objects on servers, but sends none") {
  PlanMessage message = good_message();
  message.files.push_back(
      {.path = "https://host/c", .size = 4096, .version = "https://host/c \"e\""});
  const auto read = plan_message_of(to_bytes(message));
  REQUIRE(read);
  CHECK(*read == message);
  message.files.back().path = "/c";
  CHECK_FALSE(plan_message_of(to_bytes(message)));
  message.files.back() = {.path = "https://host/c", .size = 4096};
  CHECK_FALSE(plan_message_of(to_bytes(message)));
  message.files.back().version = std::string(100'000, 'x');
  CHECK_FALSE(plan_message_of(to_bytes(message)));
}

TEST_CASE("a message arrives as it was sent, and no part of it is a message") {
  const std::string bytes = to_bytes(good_message());
  const auto arrived = plan_message_of(bytes);
  REQUIRE(arrived);
  CHECK(*arrived == good_message());
  for (size_t length = 0; length < bytes.size(); ++length) {
    CHECK_FALSE(plan_message_of(bytes.substr(0, length)));
  }
  CHECK_FALSE(plan_message_of(bytes + "x"));
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string changed_bytes = bytes;
    changed_bytes[i] = '\xff';
    (void)plan_message_of(changed_bytes);  // whatever it says, it does no harm
  }
}

TEST_CASE("a message with a value that cannot be is refused") {
  const auto refused = [](const std::function<void(PlanMessage&)>& change) {
    PlanMessage message = good_message();
    change(message);
    return !plan_message_of(to_bytes(message));
  };
  CHECK(refused([](auto& m) { m.format = "wrong"; }));
  CHECK(refused([](auto& m) { m.size = 9 * 512; }));
  CHECK(refused([](auto& m) { m.size = 11 * 512; }));
  CHECK(refused([](auto& m) { m.size = 10 * 512 + 1; }));
  CHECK(refused([](auto& m) { m.size = uint64_t{1} << 63; }));
  CHECK(refused([](auto& m) { m.files[0].path = "relative"; }));
  CHECK(refused([](auto& m) { m.files[0].path = std::string("/a\0b", 4); }));
  CHECK(refused([](auto& m) { m.files[0].path = "/" + std::string(5000, 'x'); }));
  CHECK(refused([](auto& m) { m.files.clear(), m.descriptor_files.clear(), m.runs.clear(); }));
  CHECK(refused([](auto& m) { m.descriptor_files[0] = 2; }));
  CHECK(refused([](auto& m) { m.runs[0].file = 2; }));
  CHECK(refused([](auto& m) { m.runs[0].file_sector = UINT64_MAX - 2; }));
  CHECK(refused([](auto& m) { m.runs[0].file_sector = uint64_t{1} << 54; }));
  CHECK(refused([](auto& m) { m.runs[1].sectors = 0; }));
  CHECK(refused([](auto& m) { m.runs[1].sectors = UINT64_MAX; }));
  CHECK(refused([](auto& m) { m.runs[1].file = 1; }));
  CHECK(refused([](auto& m) { m.runs[1].kind = static_cast<Kind>(3); }));
  CHECK(refused([](auto& m) { m.runs.pop_back(); }));
}

TEST_CASE("a descriptor must be the file that the message says, open for reading only") {
  const TempFolder folder;
  const std::string path = folder.write("file", std::string(4096, 'x'));
  const auto check = [&](int flags, const std::function<void(PlanMessage&)>& change) {
    std::vector<UniqueFd> fds;
    fds.emplace_back(::open(path.c_str(), flags));
    PlanMessage message = good_message();
    message.files = {*stamp_of(UniqueFd(::open(path.c_str(), O_RDONLY)).get(), path)};
    message.descriptor_files = {0};
    message.runs[0].file = 0;
    change(message);
    const auto checked = check_descriptors(message, fds);
    return checked ? "good" : checked.error().to_string();
  };
  CHECK(check(O_RDONLY, [](auto&) {}) == "good");
  CHECK(check(O_RDWR, [](auto&) {}) == path + ": was not opened for reading only");
  CHECK(check(O_PATH, [](auto&) {}) == path + ": was not opened for reading only");
  CHECK(check(O_RDONLY, [](auto& m) { ++m.files[0].mtime_ns; }) ==
        path + ": changed while it was read: try again");
  CHECK(check(O_RDONLY, [](auto& m) { m.runs[0].file_sector = 5; }) ==
        path + ": was mapped beyond its end");
  CHECK(check(O_RDONLY, [](auto& m) { m.descriptor_files.clear(); }) ==
        "answers 0 files and sends 1");
  std::vector<UniqueFd> fifo;
  const std::string fifo_path = folder.path("fifo");
  REQUIRE(::mkfifo(fifo_path.c_str(), 0600) == 0);
  fifo.emplace_back(::open(fifo_path.c_str(), O_RDONLY | O_NONBLOCK));
  PlanMessage message = good_message();
  message.descriptor_files = {0};
  CHECK_FALSE(check_descriptors(message, fifo));
}

}  // namespace
}  // namespace underlay::thin
