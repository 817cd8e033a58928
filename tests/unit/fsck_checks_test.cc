#include "tools/thin/fsck_checks.h"

#include <doctest/doctest.h>

#include "tools/thin/origin.h"

namespace underlay::thin {
namespace {

constexpr uint64_t kSectors = 2048;
const std::string kImage = "0badcafe";

PoolStatus healthy(uint64_t transaction_id) {
  PoolStatus status;
  status.transaction_id = transaction_id;
  status.mode = "rw";
  return status;
}

FsckDevice device(const std::string& name, const std::string& uuid, unsigned minor,
                  std::vector<DmTarget> table) {
  FsckDevice made;
  made.info = {.name = name, .uuid = uuid, .major = 254, .minor = minor, .has_table = true};
  made.table = std::move(table);
  return made;
}

DmTarget target(const std::string& type, const std::string& params) {
  return {.start = 0, .sectors = kSectors, .type = type, .params = params};
}

// One pool with one active volume on an image behind nbd: as it should be.
FsckState sound() {
  FsckState state;
  Registry& registry = state.registry;
  PoolRecord pool;
  pool.name = "pool";
  pool.uuid = "UNDERLAY-pool-1";
  pool.transaction_id = 5;
  registry.pools.push_back(pool);
  ImageRecord image;
  image.id = kImage;
  image.backend = "underlay-backend";
  image.location = "/template";
  image.size = kSectors * 512;
  image.files.push_back({.path = "/template", .size = 1, .mtime_ns = 1});
  registry.images.push_back(image);
  registry.volumes.push_back({.name = "volume",
                              .uuid = "UNDERLAY-volume-1",
                              .pool = "pool",
                              .thin_id = 7,
                              .sectors = kSectors,
                              .image = kImage,
                              .snapshot_of = ""});
  state.devices.push_back(device("pool", pool.uuid, 0, {target("thin-pool", "7:0 7:1 128 0")}));
  state.devices.push_back(
      device(origin_name(kImage), "UNDERLAY-origin-" + kImage, 1, {target("linear", "43:0 0")}));
  state.devices.push_back(
      device("volume", "UNDERLAY-volume-1", 2, {target("thin", "254:0 7 254:1")}));
  state.pools.push_back(
      {.name = "pool", .status = healthy(5), .thin_ids = std::vector<uint32_t>{7}});
  state.nbd.push_back({.device = {.index = 0,
                                  .path = "/dev/nbd0",
                                  .backend = image.backend,
                                  .size_bytes = image.size,
                                  .read_only = true},
                       .number = "43:0",
                       .holders = {}});
  state.images.push_back({.id = kImage, .trouble = "", .server_runs = true});
  state.run_folders.push_back(kImage);
  return state;
}

FsckDevice& device_of(FsckState& state, const std::string& name) {
  for (FsckDevice& one : state.devices) {
    if (one.info.name == name) return one;
  }
  FAIL("no such device");
  return state.devices.front();
}

// The kinds of what is found, with the repair of the only one.
std::string kinds(const FsckState& state) {
  std::string text;
  for (const FsckProblem& problem : find_problems(state)) {
    text += (text.empty() ? "" : " ") + problem.what;
  }
  return text;
}

FsckRepair repair_of(const FsckState& state) {
  const auto problems = find_problems(state);
  REQUIRE(problems.size() == 1);
  return problems.front().repair;
}

TEST_CASE("fsck: what is as it should be has no problems, active or not") {
  CHECK(kinds(sound()).empty());
  FsckState inactive = sound();
  inactive.devices.clear();
  inactive.nbd.clear();
  inactive.pools.front() = {.name = "pool", .status = std::nullopt, .thin_ids = std::nullopt};
  inactive.images.front().server_runs = false;
  CHECK(kinds(inactive).empty());
}

TEST_CASE("fsck: a volume without its origin, or with another one, is given the right one") {
  FsckState state = sound();
  device_of(state, "volume").table = {target("thin", "254:0 7")};
  CHECK(kinds(state) == "volume-origin");
  CHECK(repair_of(state) == FsckRepair::kReloadVolume);
  device_of(state, "volume").table = {target("thin", "254:0 7 254:9")};
  CHECK(kinds(state) == "volume-origin");
}

TEST_CASE("fsck: a hydrated volume whose device still has the origin is let go of it") {
  FsckState state = sound();
  state.registry.volumes.front().image = "";
  state.registry.images.front().keep = true;
  device_of(state, "volume").table = {target("thin", "254:0 7 254:1")};
  CHECK(find_problems(state).front().what == "volume-origin");
  CHECK(find_problems(state).front().repair == FsckRepair::kReloadVolume);
}

TEST_CASE("fsck: a table that differs in pool, thin id or size is for a person") {
  for (const char* const params : {"254:0 8 254:1", "254:5 7 254:1", "254:0 77 254:1"}) {
    FsckState state = sound();
    device_of(state, "volume").table = {target("thin", params)};
    CHECK(kinds(state) == "volume-table");
    CHECK(repair_of(state) == FsckRepair::kNone);
  }
  FsckState state = sound();
  device_of(state, "volume").table.front().sectors = kSectors / 2;
  CHECK(kinds(state) == "volume-table");
}

TEST_CASE("fsck: suspended devices are resumed, loaded tables dropped before that") {
  FsckState state = sound();
  device_of(state, "volume").info.suspended = true;
  CHECK(kinds(state) == "suspended");
  CHECK(repair_of(state) == FsckRepair::kResume);
  device_of(state, "volume").info.has_inactive_table = true;
  CHECK(kinds(state) == "inactive-table suspended");
}

TEST_CASE("fsck: a thin id that no volume knows is told and never deleted") {
  FsckState state = sound();
  state.pools.front().thin_ids = std::vector<uint32_t>{7, 9};
  CHECK(kinds(state) == "unknown-thin-id");
  CHECK(repair_of(state) == FsckRepair::kNone);
  CHECK(find_problems(state).front().text.find("dmsetup message pool 0 'delete 9'") !=
        std::string::npos);
  state.pools.front().thin_ids = std::vector<uint32_t>{};
  CHECK(kinds(state) == "no-thin-id");
}

TEST_CASE("fsck: a pool's transaction id and state") {
  FsckState state = sound();
  state.pools.front().status = healthy(6);
  CHECK(kinds(state) == "transaction-id");
  state.registry.pools.front().pending =
      Pending{.kind = Pending::Kind::kCreate, .from = 5, .volume = "volume"};
  CHECK(kinds(state) == "pending");
  CHECK(repair_of(state) == FsckRepair::kRecover);
  state = sound();
  state.pools.front().status->needs_check = true;
  CHECK(kinds(state) == "pool-state");
}

TEST_CASE("fsck: a hydration's device is removed, but not while a hydration goes on") {
  FsckState state = sound();
  state.devices.push_back(
      device("underlay-hydrate-volume", "UNDERLAY-hydrate-1", 3, {target("thin", "254:0 7 7:5")}));
  CHECK(repair_of(state) == FsckRepair::kRemoveHydrate);
  state.devices.back().info.open_count = 1;
  CHECK(kinds(state).empty());
}

TEST_CASE("fsck: devices that no record knows go unless something uses them") {
  FsckState state = sound();
  state.devices.push_back(device("stray", "UNDERLAY-volume-9", 3, {target("thin", "254:0 9")}));
  CHECK(kinds(state) == "unknown-device");
  CHECK(repair_of(state) == FsckRepair::kRemoveDevice);
  state.devices.back().info.open_count = 1;
  CHECK(repair_of(state) == FsckRepair::kNone);
}

TEST_CASE("fsck: another program's device under a volume's name is left alone") {
  FsckState state = sound();
  device_of(state, "volume").info.uuid = "LVM-1";
  CHECK(find_problems(state).back().repair == FsckRepair::kRelease);
  CHECK(find_problems(state).front().what == "name-taken");
  CHECK(find_problems(state).front().repair == FsckRepair::kNone);
}

TEST_CASE("fsck: nbd devices that no record knows go unless something uses them") {
  FsckState state = sound();
  state.nbd.push_back({.device = {.index = 4,
                                  .path = "/dev/nbd4",
                                  .backend = "underlay-other",
                                  .size_bytes = 512,
                                  .read_only = true},
                       .number = "43:4",
                       .holders = {}});
  CHECK(repair_of(state) == FsckRepair::kDisconnect);
  state.nbd.back().holders = {"mounted on /mnt"};
  CHECK(repair_of(state) == FsckRepair::kNone);
}

TEST_CASE("fsck: servers that died, that nobody needs, and that nobody knows") {
  FsckState state = sound();
  state.images.front().server_runs = false;
  CHECK(kinds(state) == "no-server");
  CHECK(repair_of(state) == FsckRepair::kReconnect);
  state = sound();
  state.run_folders.push_back("12345678");
  CHECK(kinds(state) == "unknown-server");
  CHECK(repair_of(state) == FsckRepair::kStopServer);
}

TEST_CASE("fsck: an origin over an nbd device that is gone or another image's") {
  FsckState state = sound();
  state.nbd.front().number = "43:5";
  CHECK(kinds(state) == "origin-nbd");
}

TEST_CASE("fsck: images without volumes are forgotten, attached ones are not") {
  FsckState state = sound();
  state.registry.volumes.clear();
  state.devices.erase(state.devices.begin() + 2);
  state.pools.front().thin_ids = std::vector<uint32_t>{};
  CHECK(kinds(state) == "unused-image");
  CHECK(repair_of(state) == FsckRepair::kForget);
  state.registry.images.front().keep = true;
  CHECK(kinds(state) == "unused-origin");
}

TEST_CASE("fsck: changed images and stale files") {
  FsckState state = sound();
  state.images.front().trouble = "/template: is another file";
  CHECK(kinds(state) == "image-changed");
  state = sound();
  state.stale_files.emplace_back("/var/lib/underlay/registry.json.new");
  CHECK(repair_of(state) == FsckRepair::kRemoveFile);
}

}  // namespace
}  // namespace underlay::thin
