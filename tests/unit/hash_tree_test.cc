#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>

#include "io/faulty_source.h"
#include "io/memory_source.h"
#include "io/store_le.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_bytes.h"
#include "tools/img/hash_tree_verifier.h"
#include "tools/img/hash_tree_writer.h"

namespace underlay::img {
namespace {

using test::Bytes;
using Kind = TreeDamage::Kind;

constexpr uint32_t kBlock = 512;

HashTreeSuperblock superblock_of(uint64_t data_blocks, std::string_view algorithm = "sha256") {
  HashTreeSuperblock superblock;
  superblock.algorithm = *find_hash_algorithm(algorithm);
  superblock.data_block_size = kBlock;
  superblock.hash_block_size = kBlock;
  superblock.data_blocks = data_blocks;
  superblock.salt = *ShortBytes::from_hex("00ff10");
  return superblock;
}

Bytes bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  return {as_bytes(text).begin(), as_bytes(text).end()};
}

// A disk of `data_blocks`, of which those in `data` are no zeros.
struct TestTree {
  TestTree(uint64_t data_blocks, std::vector<uint64_t> data, std::string_view algorithm = "sha256")
      : superblock(superblock_of(data_blocks, algorithm)),
        layout(HashTreeLayout::of(superblock).value()),
        zeros(ZeroTree::of(superblock, layout).value()),
        digests(data_blocks, zeros.data_digest) {
    for (const uint64_t block : data) {
      digests[block] = BlockHasher::create(superblock).value().hash(content(block)).value();
    }
  }

  static Bytes content(uint64_t block) {
    return test::pattern(kBlock, static_cast<uint32_t>(block + 1));
  }

  // Blocks of zeros go in as runs of them, or, `one_by_one`, as digests like all others.
  void write(bool one_by_one = false) {
    const std::string path = folder.path("tree");
    NewFile file = NewFile::create(path, NewFile::Existing::kReplace).value();
    HashTreeWriter writer = HashTreeWriter::create(superblock, layout, zeros, file).value();
    feed(writer, one_by_one, &HashTreeWriter::add, &HashTreeWriter::add_zeros);
    root = writer.finish().value();
    REQUIRE(file.commit());
    bytes = bytes_of(path);
  }

  template <class To>
  void feed(To& to, bool one_by_one, Result<void> (To::*add)(ByteSpan),
            Result<void> (To::*add_zeros)(uint64_t)) const {
    for (uint64_t i = 0; i < digests.size();) {
      uint64_t run = 0;
      while (i + run < digests.size() && digests[i + run] == zeros.data_digest) ++run;
      if (run > 0 && !one_by_one) {
        REQUIRE((to.*add_zeros)(run));
        i += run;
      } else {
        REQUIRE((to.*add)(digests[i].bytes()));
        ++i;
      }
    }
  }

  std::vector<TreeDamage> verify(bool one_by_one = false) const {
    std::vector<TreeDamage> damages;
    const MemorySource source(bytes);
    HashTreeVerifier verifier =
        HashTreeVerifier::create(source, superblock, layout, zeros, root,
                                 [&](const TreeDamage& damage) { damages.push_back(damage); })
            .value();
    feed(verifier, one_by_one, &HashTreeVerifier::check, &HashTreeVerifier::check_zeros);
    verifier.finish();
    return damages;
  }

  TempFolder folder;
  HashTreeSuperblock superblock;
  HashTreeLayout layout;
  ZeroTree zeros;
  std::vector<ShortBytes> digests;
  ShortBytes root;
  Bytes bytes;
};

bool is_data_damage(const TreeDamage& damage, uint64_t first, uint64_t blocks) {
  return damage.kind == Kind::kData && damage.offset == first * kBlock &&
         damage.length == blocks * kBlock;
}

TEST_CASE("digests are those of the standards") {
  Hasher hasher = Hasher::create(*find_hash_algorithm("sha256")).value();
  REQUIRE(hasher.begin());
  REQUIRE(hasher.update(as_bytes("abc")));
  // FIPS 180-4's example.
  CHECK(hasher.finish().value().to_hex() ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(find_hash_algorithm("md4") == nullptr);
}

TEST_CASE("hashing zeros is hashing zeros") {
  for (const uint64_t count : {0u, 1u, 16u << 10, 100'000u}) {
    Hasher hasher = Hasher::create(*find_hash_algorithm("sha512")).value();
    REQUIRE(hasher.begin());
    REQUIRE(hasher.update_zeros(count));
    const ShortBytes known = hasher.finish().value();
    REQUIRE(hasher.begin());
    REQUIRE(hasher.update(Bytes(count)));
    CHECK(hasher.finish().value() == known);
  }
}

TEST_CASE("short bytes are read from hexadecimal digits of either case, and nothing else") {
  CHECK(ShortBytes::from_hex("00fFA1").value().to_hex() == "00ffa1");
  CHECK(ShortBytes::from_hex("").value().size() == 0);
  CHECK(!ShortBytes::from_hex("0"));
  CHECK(!ShortBytes::from_hex("0g"));
  CHECK(ShortBytes::from_hex(std::string(512, '0')).has_value());
  CHECK(!ShortBytes::from_hex(std::string(514, '0')));
}

TEST_CASE("a hash tree's superblock is read as it was written") {
  HashTreeSuperblock superblock = superblock_of(0x0123456789abcdef, "sha512");
  superblock.data_block_size = 4096;
  superblock.uuid.fill(std::byte{0x5a});
  const auto bytes = hash_tree_superblock_bytes(superblock);
  const HashTreeSuperblock read = parse_hash_tree_superblock(bytes).value();
  CHECK(read.algorithm.name == "sha512");
  CHECK(read.data_block_size == 4096);
  CHECK(read.hash_block_size == 512);
  CHECK(read.data_blocks == 0x0123456789abcdef);
  CHECK(read.salt == superblock.salt);
  CHECK(read.uuid == superblock.uuid);
}

TEST_CASE("a superblock with one wrong field is refused, which names it") {
  const auto good = hash_tree_superblock_bytes(superblock_of(100));
  REQUIRE(parse_hash_tree_superblock(good));
  struct Wrong {
    size_t offset;
    uint32_t value;
    std::string_view named;
  };
  for (const Wrong& wrong : {Wrong{0, 0x72657656, "verity"},  // "Ver"
                             {8, 2, "version is 2"},
                             {12, 0, "hash_type is 0"},
                             {12, 2, "hash_type is 2"},
                             {32, 0x35646d, "\"md5\""},  // "md5"
                             {64, 0, "data_block_size is 0"},
                             {64, 256, "data_block_size is 256"},
                             {64, 1000, "data_block_size is 1000"},
                             {64, 1 << 20, "data_block_size is 1048576"},
                             {64, 0x80000000, "data_block_size is 2147483648"},
                             {68, 4095, "hash_block_size is 4095"},
                             {72, 0, "data_blocks is 0"},
                             {80, 257, "salt_size is 257"},
                             {80, 0xffff, "salt_size is 65535"}}) {
    CAPTURE(wrong.named);
    auto bytes = good;
    store_le(bytes, wrong.offset, wrong.value);
    const auto parsed = parse_hash_tree_superblock(bytes);
    REQUIRE(!parsed);
    CHECK(parsed.error().message.find(wrong.named) != std::string::npos);
  }
}

TEST_CASE("the levels of a hash tree lie as veritysetup puts them") {
  // 4096-byte blocks have 128 digests of 32 bytes: 262146 -> 2049 -> 17 -> 1.
  HashTreeSuperblock superblock = superblock_of(262146);
  superblock.data_block_size = superblock.hash_block_size = 4096;
  const HashTreeLayout layout = HashTreeLayout::of(superblock).value();
  REQUIRE(layout.levels.size() == 3);
  CHECK(layout.levels[2].offset == 4096);
  CHECK(layout.levels[1].offset == 2 * 4096);
  CHECK(layout.levels[0].offset == 19 * 4096);
  CHECK(layout.levels[0].blocks == 2049);
  CHECK(layout.end == 8470528);
  CHECK(HashTreeLayout::of(superblock_of(1)).value().levels.empty());
  CHECK(HashTreeLayout::of(superblock_of(16)).value().levels.size() == 1);
  CHECK(HashTreeLayout::of(superblock_of(17)).value().levels.size() == 2);
  // Slots are powers of two.
  CHECK(HashTreeLayout::of(superblock_of(9, "sha1")).value().slots == 16);
  CHECK(HashTreeLayout::of(superblock_of(9, "sha384")).value().slots == 8);
}

TEST_CASE("a tree that does not fit into 64 bits is refused, the largest that does is not") {
  HashTreeSuperblock superblock = superblock_of(uint64_t{1} << 58);
  superblock.hash_block_size = kLargestHashedBlock;
  CHECK(HashTreeLayout::of(superblock).value().levels.size() == 5);
  superblock.data_blocks = UINT64_MAX;
  CHECK(HashTreeLayout::of(superblock).error().kind == ErrorKind::kMalformed);
}

TEST_CASE("runs of zeros change nothing of a tree but the work") {
  std::mt19937 random(7);
  for (const uint64_t blocks :
       {1u, 2u, 15u, 16u, 17u, 255u, 256u, 257u, 272u, 273u, 4095u, 4096u, 5000u}) {
    for (const int data : {0, 1, 3}) {
      std::vector<uint64_t> with_data;
      for (int i = 0; i < data; ++i) with_data.push_back(random() % blocks);
      TestTree tree(blocks, with_data);
      tree.write(/*one_by_one=*/true);
      const Bytes expected = tree.bytes;
      const ShortBytes root = tree.root;
      tree.write();
      CAPTURE(blocks);
      CHECK(tree.bytes == expected);
      CHECK(tree.root == root);
      CHECK(tree.bytes.size() == tree.layout.end);
      CHECK(tree.verify().empty());
      CHECK(tree.verify(/*one_by_one=*/true).empty());
    }
  }
}

TEST_CASE("every kind of digest makes a tree that verifies") {
  for (const char* name : {"sha1", "sha224", "sha256", "sha384", "sha512"}) {
    const HashAlgorithm& algorithm = *find_hash_algorithm(name);
    TestTree tree(300, {1, 2, 299}, algorithm.name);
    tree.write();
    CHECK(tree.root.size() == algorithm.bytes);
    CHECK(tree.verify().empty());
    std::swap(tree.digests[1], tree.digests[2]);
    CHECK(tree.verify().size() == 1);
  }
}

TEST_CASE("damaged data is found, and neighbours are one range") {
  TestTree tree(5000, {7, 8, 9, 4000});
  tree.write();
  tree.digests[7] = tree.digests[8] = tree.zeros.data_digest;  // lost
  tree.digests[4000] = tree.digests[9];                        // exchanged
  tree.digests[4999] = tree.digests[16] = tree.digests[9];     // came from nowhere
  for (const bool one_by_one : {false, true}) {
    const auto damages = tree.verify(one_by_one);
    REQUIRE(damages.size() == 4);
    CHECK(is_data_damage(damages[0], 7, 2));
    CHECK(is_data_damage(damages[1], 16, 1));
    CHECK(is_data_damage(damages[2], 4000, 1));
    CHECK(is_data_damage(damages[3], 4999, 1));
  }
}

TEST_CASE("damage to any block of the tree is found, with all that it stands for") {
  TestTree tree(1000, {0, 100, 500, 999});
  tree.write();
  const Bytes good = tree.bytes;
  REQUIRE(tree.layout.levels.size() == 3);
  for (size_t level = 0; level < 3; ++level) {
    uint64_t below = 1;
    for (size_t i = 0; i <= level; ++i) below *= tree.layout.slots;
    for (uint64_t block = 0; block < tree.layout.levels[level].blocks; ++block) {
      tree.bytes = good;
      const uint64_t at = tree.layout.levels[level].offset + block * kBlock;
      tree.bytes[at + (block * 37) % kBlock] ^= std::byte{1};
      const auto damages = tree.verify();
      CAPTURE(level);
      CAPTURE(block);
      REQUIRE(damages.size() == 1);
      CHECK(damages[0].kind == Kind::kTree);
      CHECK(damages[0].offset == block * below * kBlock);
      CHECK(damages[0].length == std::min(below, 1000 - block * below) * kBlock);
      CHECK(damages[0].tree_offset == at);
      CHECK(damages[0].tree_length == kBlock);
    }
  }
}

TEST_CASE("nothing below a damaged hash block is believed") {
  TestTree tree(1000, {0, 1, 2});
  tree.write();
  // The level above says that these digests are right, and lies.
  tree.digests[0] = tree.digests[1];
  std::copy_n(tree.digests[1].bytes().begin(), 32,
              tree.bytes.begin() + static_cast<std::ptrdiff_t>(tree.layout.levels[0].offset));
  const auto damages = tree.verify();
  REQUIRE(damages.size() == 1);
  CHECK(damages[0].kind == Kind::kTree);
  CHECK(damages[0].length == 16 * kBlock);
}

TEST_CASE("another root hash makes all of the disk unverifiable") {
  TestTree tree(1000, {5});
  tree.write();
  tree.root.bytes()[0] ^= std::byte{1};
  const auto damages = tree.verify();
  REQUIRE(damages.size() == 1);
  CHECK(damages[0].kind == Kind::kTree);
  CHECK(damages[0].length == 1000 * kBlock);
  TestTree single(1, {0});
  single.write();
  CHECK(single.verify().empty());
  single.root.bytes()[0] ^= std::byte{1};
  CHECK(is_data_damage(single.verify().at(0), 0, 1));
}

TEST_CASE("a tree that cannot be read is an error, and no damage") {
  TestTree tree(1000, {5});
  tree.write();
  FaultySource source(std::make_shared<MemorySource>(tree.bytes));
  source.fail_range(tree.layout.levels[0].offset + 3 * kBlock, 1);
  HashTreeVerifier verifier =
      HashTreeVerifier::create(source, tree.superblock, tree.layout, tree.zeros, tree.root,
                               [](const TreeDamage&) { FAIL("reported"); })
          .value();
  REQUIRE(verifier.check_zeros(5));
  REQUIRE(verifier.check(tree.digests[5].bytes()));
  CHECK(verifier.check_zeros(994).error().sys_errno == EIO);
}

TEST_CASE("blocks of zeros among data have the digest of zeros, and the others their own") {
  TestTree tree(4, {1, 3});
  DataHasher hasher = DataHasher::create(tree.superblock, tree.zeros.data_digest, 2).value();
  Bytes data(4 * kBlock);
  std::ranges::copy(TestTree::content(1), data.begin() + kBlock);
  std::ranges::copy(TestTree::content(3), data.begin() + 3 * kBlock);
  Bytes digests;
  REQUIRE(hasher.hash(1, data, digests));
  REQUIRE(digests.size() == 4 * 32);
  for (size_t i = 0; i < 4; ++i) {
    CHECK(ShortBytes::copy_of(ByteSpan(digests).subspan(32 * i, 32)) == tree.digests[i]);
  }
  // A zero in front, and one byte that is none.
  Bytes nearly(kBlock);
  nearly.back() = std::byte{1};
  REQUIRE(hasher.hash(0, nearly, digests));
  CHECK(ShortBytes::copy_of(digests) != tree.zeros.data_digest);
}

}  // namespace
}  // namespace underlay::img
