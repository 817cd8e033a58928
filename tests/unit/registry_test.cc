#include "tools/thin/registry.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temp_folder.h"
#include "tools/thin/registry_store.h"

namespace underlay::thin {
namespace {

Registry sample() {
  Registry registry;
  registry.pools.push_back(
      {.name = "pool",
       .uuid = "UNDERLAY-pool-1",
       .data = "/dev/disk/by-id/data",
       .metadata = "/dev/disk/by-id/metadata",
       .on_files = false,
       .block_sectors = 128,
       .low_water_blocks = 100,
       .discards = Discards::kUnmap,
       .transaction_id = 7,
       .next_thin_id = 3,
       .pending = Pending{.kind = Pending::Kind::kSnapshot, .from = 7, .volume = "copy"}});
  registry.images.push_back(
      {.id = "0123abcd",
       .backend = "underlay-x",
       .location = "/images/\"a\" b.qcow2",
       .format = "qcow2",
       .backing_format = "raw",
       .allow_paths = {"/base"},
       .parents = {"child=/parent"},
       .size = UINT64_MAX - 511,
       .files = {{.path = "/images/a", .size = 5, .mtime_ns = -1, .version = {}},
                 {.path = "https://host/b",
                  .size = 6,
                  .mtime_ns = 0,
                  .version = "https://host/b \"etag\""}},
       .connections = 2,
       .recovery_timeout = 3,
       .dead_timeout = 4,
       .direct = DirectMode::kNever,
       .keep = true});
  registry.volumes.push_back({.name = "vm1",
                              .uuid = "UNDERLAY-volume-1",
                              .pool = "pool",
                              .thin_id = 1,
                              .sectors = 2048,
                              .image = "0123abcd",
                              .snapshot_of = ""});
  registry.volumes.push_back({.name = "copy",
                              .uuid = "UNDERLAY-volume-2",
                              .pool = "pool",
                              .thin_id = 2,
                              .sectors = 2048,
                              .image = "",
                              .snapshot_of = "vm1"});
  return registry;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

TEST_CASE("registry: what was written reads back equal") {
  const auto text = to_json(sample());
  REQUIRE(text);
  const auto back = registry_from_json(*text);
  REQUIRE(back);
  CHECK(*back == sample());
  const auto empty = to_json(Registry{});
  REQUIRE(empty);
  CHECK(registry_from_json(*empty).value() == Registry{});
}

TEST_CASE(
    "registry: a field that is missing, unknown, of another type or out of range is refused") {
  const std::string good = *to_json(sample());
  const auto refused = [&](const std::string& from, const std::string& to) {
    INFO(from << " -> " << to);
    const auto back = registry_from_json(replaced(good, from, to));
    REQUIRE_FALSE(back);
    CHECK(back.error().kind == ErrorKind::kMalformed);
  };
  refused("\"keep\": true", "\"kept\": true");
  refused("\"keep\": true", "\"keep\": 1");
  refused("\"keep\": true", "\"keep\": true, \"more\": 1");
  refused("\"thin_id\": 1", "\"thin_id\": 4294967296");
  refused("\"thin_id\": 1", "\"thin_id\": -1");
  refused("\"thin_id\": 1", "\"thin_id\": 1.5");
  refused("\"thin_id\": 1", "\"thin_id\": \"1\"");
  refused("\"mtime_ns\": -1", "\"mtime_ns\": 9223372036854775808");
  refused("\"sectors\": 2048", "\"sectors\": 0");
  refused("\"block_sectors\": 128", "\"block_sectors\": 0");
  refused("\"discards\": \"unmap\"", "\"discards\": \"later\"");
  refused("\"id\": \"0123abcd\"", "\"id\": \"../../etc\"");
  refused("\"name\": \"vm1\"", "\"name\": \"../vm1\"");
  refused("\"version\": 1", "\"version\": 0");
  refused("\"images\": [", "\"images\": 3, \"x\": [");
}

TEST_CASE("registry: references lead somewhere, names and ids stand once") {
  const auto refused = [](auto&& change) {
    Registry registry = sample();
    change(registry);
    const auto back = registry_from_json(*to_json(registry));
    REQUIRE_FALSE(back);
    CHECK(back.error().kind == ErrorKind::kMalformed);
  };
  refused([](Registry& registry) { registry.volumes[0].pool = "other"; });
  refused([](Registry& registry) { registry.volumes[0].image = "ffffffff"; });
  refused([](Registry& registry) { registry.volumes[1].thin_id = 1; });
  refused([](Registry& registry) { registry.volumes[1].name = "vm1"; });
  refused([](Registry& registry) { registry.volumes[1].name = "pool"; });
  refused([](Registry& registry) { registry.images.push_back(registry.images[0]); });
  refused([](Registry& registry) { registry.pools[0].pending->volume = "gone"; });
}

TEST_CASE("registry: a newer program's version is told from damage") {
  const auto newer =
      registry_from_json(replaced(*to_json(sample()), "\"version\": 1", "\"version\": 2"));
  REQUIRE_FALSE(newer);
  CHECK(newer.error().kind == ErrorKind::kUnsupported);
  for (const char* text : {"", "{", "[]", "null", "{}", "{\"version\": 1}"}) {
    const auto damaged = registry_from_json(text);
    REQUIRE_FALSE(damaged);
    CHECK(damaged.error().kind == ErrorKind::kMalformed);
  }
}

TEST_CASE("registry: names that are no plain word for /dev/mapper are refused") {
  for (const char* name : {"vm1", "VM.2_a+b-c", "9"}) CHECK(check_name(name, "volume"));
  for (const char* name :
       {"", "-a", ".a", "a/b", "a b", "control", "underlay-1", "a\n", "\xc3\xa4"}) {
    CHECK_FALSE(check_name(name, "volume"));
  }
  CHECK(check_name(std::string(100, 'a'), "volume"));
  CHECK_FALSE(check_name(std::string(101, 'a'), "volume"));
}

TEST_CASE("registry store: it is empty at first, and keeps what was written") {
  const TempFolder folder;
  const std::string path = folder.path() + "/deep/state";
  CHECK(read_registry(path).value() == Registry{});
  {
    auto store = RegistryStore::open(path);
    REQUIRE(store);
    CHECK(store->get() == Registry{});
    REQUIRE(store->write(sample()));
    CHECK(store->get() == sample());
  }
  CHECK(read_registry(path).value() == sample());
  const auto again = RegistryStore::open(path);
  REQUIRE(again);
  CHECK(again->get() == sample());
}

TEST_CASE("registry store: what would not read back does not replace what does") {
  const TempFolder folder;
  auto store = RegistryStore::open(folder.path());
  REQUIRE(store);
  REQUIRE(store->write(sample()));
  Registry wrong = sample();
  wrong.volumes[0].pool = "nowhere";
  CHECK_FALSE(store->write(wrong));
  Registry no_utf8 = sample();
  no_utf8.images[0].location = "/images/\xff";
  CHECK_FALSE(store->write(no_utf8));
  CHECK(store->get() == sample());
  CHECK(read_registry(folder.path()).value() == sample());
}

TEST_CASE("registry store: a temporary file left by a crash counts for nothing") {
  const TempFolder folder;
  {
    auto store = RegistryStore::open(folder.path());
    REQUIRE(store);
    REQUIRE(store->write(sample()));
  }
  std::ofstream(folder.path() + "/registry.json.new") << "half of";
  auto store = RegistryStore::open(folder.path());
  REQUIRE(store);
  CHECK(store->get() == sample());
  REQUIRE(store->write(Registry{}));
  CHECK(read_registry(folder.path()).value() == Registry{});
}

TEST_CASE("registry store: a damaged file is an error that names it, not an empty registry") {
  const TempFolder folder;
  std::ofstream(folder.path() + "/registry.json") << "{";
  const auto store = RegistryStore::open(folder.path());
  REQUIRE_FALSE(store);
  CHECK(store.error().file == folder.path() + "/registry.json");
}

}  // namespace
}  // namespace underlay::thin
