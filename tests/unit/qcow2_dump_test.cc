// The dump of qcow2 images: fields at their places, tables of every kind, and what is damaged.
#include <doctest/doctest.h>

#include <functional>

#include "tests/support/dumped.h"
#include "tests/support/luks_builder.h"
#include "tests/support/qcow2_builder.h"

namespace underlay {
namespace {

using Bytes = Qcow2Builder::Bytes;
using test::dump_as;
using test::Dumped;

constexpr uint64_t kCopied = uint64_t{1} << 63;

Dumped dumped_of(const Qcow2Builder& builder) {
  Dumped dumped;
  const auto done = dump_as("qcow2", builder.file, dumped);
  CHECK_MESSAGE(done, done.error().to_string());
  return dumped;
}

// Fields of that structure.
size_t count_in(const Dumped& dumped, std::string_view structure) {
  return static_cast<size_t>(
      std::count_if(dumped.fields.begin(), dumped.fields.end(),
                    [&](const Dumped::Field& field) { return field.structure == structure; }));
}

}  // namespace

TEST_CASE("qcow2 dump: the header's fields at their places") {
  Qcow2Builder builder(
      {.cluster_bits = 14, .size = 1 << 20, .extended_l2 = true, .codec = Codec::kZstd});
  const Dumped dumped = dumped_of(builder);
  CHECK(dumped.find("header", "magic").value == 0x514649fb);
  CHECK(dumped.find("header", "cluster_bits").meaning == "clusters of 16384 bytes");
  CHECK(dumped.find("header", "size").value == 1 << 20);
  CHECK(dumped.find("header", "size").offset == 24);
  CHECK(dumped.find("header", "l1_table_offset").offset == 40);
  CHECK(dumped.find("header", "incompatible_features").meaning ==
        "compression type, extended L2 entries");
  CHECK(dumped.find("header", "refcount_order").value == 4);
  CHECK(dumped.find("header", "header_length").value == 112);
  CHECK(dumped.find("header", "compression_type").meaning == "zstd");
  const Dumped old = dumped_of(Qcow2Builder({.version = 2}));
  CHECK(count_in(old, "header") == 13);
  CHECK(old.find("header", "snapshots_offset").offset == 64);
}

TEST_CASE("qcow2 dump: header extensions and the backing file's name") {
  Qcow2Builder builder({});
  builder.add_extension(0xe2792aca, "raw");
  std::string names(48, '\0');
  names[1] = 40;
  names.replace(2, 6, "travel");
  builder.add_extension(0x6803f857, names);
  builder.add_extension(0x12345678, "abc");
  builder.set_backing_name("base.img");
  builder.set64(72, 1ull << 40);
  const Dumped dumped = dumped_of(builder);
  CHECK(dumped.find("header", "incompatible_features").meaning == "travel");
  CHECK(dumped.find("header extension", "type").meaning == "backing file format name");
  CHECK(dumped.find("header extension", "data").value == "raw");
  CHECK(dumped.find("header extension", "name").value == "travel");
  CHECK(dumped.find("header extension", "bit").value == 40);
  CHECK(dumped.find("backing file name", "backing_file_name").value == "base.img");
}

TEST_CASE("qcow2 dump: every entry of L1 and L2 tables, and what it says") {
  Qcow2Builder builder({.size = 64 << 10});
  builder.put_data(0, 1);
  builder.put_zeros(1, true);
  builder.put_zeros(2, false);
  builder.put_compressed(3, 2);
  const uint64_t l2 = builder.get64(builder.l1_offset()) & ~kCopied;
  const uint64_t data = builder.get64(l2) & ~kCopied;
  const Dumped dumped = dumped_of(builder);
  CHECK(count_in(dumped, "L1 table") == 2);
  CHECK(dumped.find("L1 table", "[0]").meaning == fmt::format("L2 table at {}, copied", l2));
  CHECK(dumped.find("L1 table", "[1]").value == 0);
  CHECK(count_in(dumped, "L2 table 0") == 64);
  CHECK(dumped.find("L2 table 0", "[0]").offset == l2);
  CHECK(dumped.find("L2 table 0", "[0]").value == (data | kCopied));
  CHECK(dumped.find("L2 table 0", "[0]").meaning == fmt::format("cluster at {}, copied", data));
  CHECK(dumped.find("L2 table 0", "[1]").meaning.ends_with(", copied, zeros"));
  CHECK(dumped.find("L2 table 0", "[2]").meaning == "no cluster, zeros");
  CHECK(dumped.find("L2 table 0", "[3]").meaning.starts_with("compressed, "));
  CHECK(dumped.find("L2 table 0", "[4]").meaning.empty());

  Qcow2Builder extended({.cluster_bits = 14, .size = 1 << 20, .extended_l2 = true});
  extended.put_data(1, 1);
  const Dumped wide = dumped_of(extended);
  CHECK(count_in(wide, "L2 table 0") == 1024);
  CHECK(wide.find("L2 table 0", "[1]").length == 16);
  CHECK(wide.find("L2 table 0", "[1]").value[1] == 0xffffffff);
  CHECK(wide.find("L2 table 0", "[1]").meaning.ends_with("copied, stored 0xffffffff, zeros 0x0"));
}

TEST_CASE("qcow2 dump: refcounts of every width, by their clusters") {
  for (uint32_t order = 0; order <= 6; ++order) {
    CAPTURE(order);
    Qcow2Builder builder({.size = 4096});
    builder.put_data(0, 1);
    const uint64_t table = builder.put_refcounts(order);
    if (order >= 3) builder.set_refcount(2, 200);
    const Dumped dumped = dumped_of(builder);
    const uint64_t block = builder.get64(table);
    CHECK(dumped.find("refcount table", "[0]").meaning ==
          fmt::format("refcount block at {}", block));
    CHECK(dumped.find("refcount block 0", "[0]").offset == block);
    if (order < 3) {  // bytes of refcounts
      CHECK(count_in(dumped, "refcount block 0") == 512);
      continue;
    }
    CHECK(count_in(dumped, "refcount block 0") == 4096u >> order);
    CHECK(dumped.find("refcount block 0", "[0]").value == 1);
    CHECK(dumped.find("refcount block 0", "[2]").value == 200);
    CHECK(dumped.find("refcount block 0", "[2]").offset == block + (2u << order) / 8);
  }
}

TEST_CASE("qcow2 dump: snapshots, and of their tables those that the active disk does not share") {
  Qcow2Builder builder({.size = 64 << 10});
  builder.put_data(0, 1);
  const uint64_t own = builder.append(Bytes(512));
  Bytes l1(16);
  store_be(MutableByteSpan(l1), 0, builder.get64(builder.l1_offset()) & ~kCopied);
  store_be(MutableByteSpan(l1), 8, own);
  const uint64_t at = builder.append(l1);
  builder.put_snapshots({{.id = "7",
                          .name = "name",
                          .l1_offset = at,
                          .l1_entries = 2,
                          .disk_size = 65536,
                          .extra_bytes = 24}});
  const Dumped dumped = dumped_of(builder);
  CHECK(dumped.find("snapshot 0", "l1_table_offset").value == at);
  CHECK(dumped.find("snapshot 0", "disk_size").value == 65536);
  CHECK(dumped.find("snapshot 0", "icount").value == 0);
  CHECK(dumped.find("snapshot 0", "id").value == "7");
  CHECK(dumped.find("snapshot 0", "name").value == "name");
  CHECK(count_in(dumped, "snapshot 0 L1 table") == 2);
  CHECK(count_in(dumped, "snapshot 0 L2 table 0") == 0);
  CHECK(count_in(dumped, "snapshot 0 L2 table 1") == 64);
}

TEST_CASE("qcow2 dump: bitmaps and LUKS headers") {
  Qcow2Builder builder({});
  const uint64_t bits = builder.append(Bytes(512));
  builder.put_bitmaps({{.name = "one", .table = {0, 1, bits}, .flags = 3}});
  const Dumped dumped = dumped_of(builder);
  CHECK(dumped.find("header extension", "nb_bitmaps").value == 1);
  CHECK(dumped.find("bitmap 0", "name").value == "one");
  CHECK(dumped.find("bitmap 0", "flags").meaning == "in use, auto");
  CHECK(dumped.find("bitmap 0 table", "[0]").meaning == "all zeros");
  CHECK(dumped.find("bitmap 0 table", "[1]").meaning == "all ones");
  CHECK(dumped.find("bitmap 0 table", "[2]").meaning == fmt::format("bits at {}", bits));

  Qcow2Builder encrypted({});
  encrypted.set32(32, 2);
  Bytes pointer(16);
  const Bytes luks = LuksBuilder("key").container;
  store_be(MutableByteSpan(pointer), 0, encrypted.append(luks));
  store_be(MutableByteSpan(pointer), 8, uint64_t{luks.size()});
  encrypted.add_extension(0x0537be77, as_text(pointer));
  const Dumped header = dumped_of(encrypted);
  CHECK(header.find("header", "crypt_method").meaning == "LUKS");
  CHECK(header.find("LUKS header", "cipher-mode").value == "xts-plain64");
  CHECK(header.find("LUKS header", "key-slot-1 active").meaning == "in use");
  CHECK(header.find("LUKS header", "key-slot-2 active").meaning == "free");
}

TEST_CASE("qcow2 dump: only what is wanted is read, and a failure to tell ends it") {
  Qcow2Builder builder({.size = 4096});
  builder.put_data(0, 1);
  builder.put_bitmaps({{.name = "one", .table = {0}}});
  builder.put_refcounts();
  Dumped without(false);
  REQUIRE(dump_as("qcow2", builder.file, without));
  CHECK(count_in(without, "L2 table 0") == 0);
  CHECK(without.structures == dumped_of(builder).structures);
  const size_t all = dumped_of(builder).fields.size();
  for (size_t at = 1; at <= all; at += 7) {
    Dumped broken;
    broken.fail_at = at;
    CHECK(dump_as("qcow2", builder.file, broken).error().sys_errno == EPIPE);
    CHECK(broken.fields.size() == at);
  }
}

TEST_CASE("qcow2 dump: damaged images, as far as that goes") {
  Qcow2Builder bits({});
  bits.set32(20, 70);
  CHECK(dumped_of(bits).structures == std::vector<std::string>{"header"});
  Qcow2Builder l1({.size = 64 << 10});
  l1.set64(l1.l1_offset(), 1ull << 40);
  CHECK(count_in(dumped_of(l1), "L2 table 0") == 0);
  Qcow2Builder cut({.size = 64 << 10});
  cut.put_data(0, 1);
  cut.file.resize((cut.get64(cut.l1_offset()) & ~kCopied) + 20);
  CHECK(count_in(dumped_of(cut), "L2 table 0") == 2);
  Qcow2Builder old({});
  old.set32(4, 1);
  Dumped dumped;
  CHECK_FALSE(dump_as("qcow2", old.file, dumped));
}

}  // namespace underlay
