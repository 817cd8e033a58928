// Encrypted qcow2 images: "crypt_method" and "Full disk encryption header pointer" in
// docs/interop/qcow2.txt.
#include "formats/qcow2/qcow2_encryption.h"

#include "io/faulty_source.h"
#include "tests/support/luks_builder.h"
#include "tests/support/qcow2_fixture.h"
#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

using Bytes = Qcow2Builder::Bytes;
using Kind = Extent::Kind;

constexpr std::string_view kPassphrase = "open sesame";
constexpr uint64_t kCopied = uint64_t{1} << 63;
constexpr uint32_t kPointer = 0x0537be77;

const LuksBuilder& luks() {
  static const LuksBuilder builder(kPassphrase);
  return builder;
}

// An image whose data clusters are encrypted by their place in the file.
struct Encrypted {
  Qcow2Builder builder;
  TempFolder folder;
  Qcow2Opener opener;
  uint64_t pointer = 0;  // where the extension's data lies

  explicit Encrypted(const Qcow2Builder::Options& options = {}) : builder(options) {
    builder.set32(32, 2);
    const uint64_t offset = builder.append(luks().container);
    Bytes data(16);
    store_be(MutableByteSpan(data), 0, offset);
    store_be(MutableByteSpan(data), 8, uint64_t{luks().container.size()});
    builder.add_extension(kPointer, as_text(data));
    pointer = 112 + 8;
    opener.options.key = SecretFile{.id = "sec0", .path = folder.write("key", kPassphrase)};
  }

  void put(uint64_t cluster, uint8_t seed, uint64_t bitmap = 0xffffffff) {
    builder.put_data(cluster, seed);
    const uint64_t entry = builder.l2_entry_offset(cluster);
    const uint64_t host = builder.get64(entry) & ~kCopied;
    builder.put_entry(cluster, host | kCopied, bitmap);
    const Bytes stored = luks().encrypted(host / 512, builder.pattern(cluster, seed));
    std::ranges::copy(stored, builder.file.begin() + static_cast<ptrdiff_t>(host));
  }
};

}  // namespace

TEST_CASE("qcow2 encrypted: clusters of all kinds read as what was written") {
  for (const uint32_t cluster_bits : {9u, 16u, 18u}) {
    Encrypted image({.cluster_bits = cluster_bits, .size = uint64_t{12} << cluster_bits});
    for (const uint64_t cluster : {0u, 1u, 5u}) image.put(cluster, 9);
    image.builder.put_zeros(2, true);
    image.builder.put_zeros(3, false);
    // Compressed clusters are not encrypted.
    image.builder.put_compressed(4, 3);
    const auto disk = image.opener.open_disk(image.builder.file);
    REQUIRE_MESSAGE(disk, disk.error().to_string());
    CHECK(read_bytes(*disk, 0, image.builder.truth.size()).value() == image.builder.truth);
    CHECK(read_bytes(*disk, 700, 100).value() ==
          Bytes(image.builder.truth.begin() + 700, image.builder.truth.begin() + 800));
  }
}

TEST_CASE("qcow2 encrypted: subclusters are decrypted one by one") {
  Encrypted image({.cluster_bits = 14, .size = 1 << 20, .extended_l2 = true});
  image.put(1, 2, uint64_t{0x0000'0100} << 32 | 0x8000'0005);
  Bytes truth(1 << 20);
  const Bytes cluster = image.builder.pattern(1, 2);
  for (const size_t part : {0u, 2u, 31u}) {
    std::copy_n(cluster.begin() + static_cast<ptrdiff_t>(part * 512), 512,
                truth.begin() + static_cast<ptrdiff_t>((1 << 14) + part * 512));
  }
  const auto disk = image.opener.open_disk(image.builder.file);
  REQUIRE_MESSAGE(disk, disk.error().to_string());
  CHECK(read_bytes(*disk, 0, 1 << 20).value() == truth);
}

TEST_CASE("qcow2 encrypted: stored clusters are loaded, in pieces of at most 64 KiB") {
  Encrypted image({.cluster_bits = 18, .size = 4 << 18});
  image.put(0, 1);
  image.put(1, 2);
  const auto reader = image.opener.open(image.builder.file);
  REQUIRE(reader);
  const Extent extent = (*reader)->map((1 << 18) + 70000, 1 << 18, MapFor::kRead).value();
  CHECK(extent.kind == Kind::kCopied);
  CHECK(extent.cluster_start == (1 << 18) + (1 << 16));
  CHECK(extent.cluster_length == 1 << 16);
  CHECK(extent.length == (1 << 17) - 70000);
  CHECK((*reader)->map(2 << 18, 512, MapFor::kRead)->kind == Kind::kParent);
}

TEST_CASE("qcow2 encrypted: a cluster that the file's end cuts is read as far as it goes") {
  Encrypted image({.cluster_bits = 16, .size = 1 << 16});
  image.put(0, 1);
  const auto read_cut = [&](uint64_t cut, uint64_t length) -> Result<Bytes> {
    Bytes file = image.builder.file;
    file.resize(file.size() - cut);
    return read_bytes(TRY(image.opener.open_disk(file)), 0, length);
  };
  CHECK(read_cut(512, 65024).value() ==
        Bytes(image.builder.truth.begin(), image.builder.truth.end() - 512));
  check_refused(read_cut(512, 65536), ErrorKind::kTruncated, "truncated");
  check_refused(read_cut(100, 512), ErrorKind::kTruncated, "ends inside a sector");
  check_refused(read_cut(65536, 512), ErrorKind::kTruncated, "beyond the end");
}

TEST_CASE("qcow2 encrypted: a read that fails gives no bytes, and the next one does") {
  Encrypted image;
  image.put(0, 1);
  const auto faulty =
      std::make_shared<FaultySource>(std::make_shared<MemorySource>(image.builder.file));
  const auto disk = image.opener.open_disk(faulty);
  REQUIRE(disk);
  REQUIRE(disk->map(0, 512, MapFor::kRead));
  faulty->fail_read(0);
  const auto failed = read_bytes(*disk, 0, 512);
  REQUIRE_FALSE(failed);
  CHECK(failed.error().kind == ErrorKind::kIo);
  CHECK(read_bytes(*disk, 0, 512).value() == image.builder.pattern(0, 1));
}

TEST_CASE("qcow2 encrypted: without the secret, or with a wrong one, it is refused") {
  Encrypted image;
  image.put(0, 1);
  const auto refused = [&](ErrorKind kind, std::string_view words) {
    check_refused(image.opener.open(image.builder.file), kind, words);
  };
  image.opener.options.key->path = image.folder.write("wrong", "other words");
  refused(ErrorKind::kDenied, "none of its LUKS key slots (secret \"sec0\"");
  image.opener.options.key->path = image.folder.path("none");
  refused(ErrorKind::kIo, "secret \"sec0\": cannot open");
  image.opener.options.key.reset();
  refused(ErrorKind::kUsage, "crypt_method is 2, LUKS");
  image.opener.options.encrypt_format = "aes";
  refused(ErrorKind::kUsage, "encrypt.format=\"aes\"");
}

TEST_CASE("qcow2 encrypted: methods that are not served are refused with what to do") {
  Qcow2Opener opener;
  Qcow2Builder builder({});
  builder.set32(32, 1);
  check_refused(opener.open(builder.file), ErrorKind::kUnsupported, "qemu-img convert --object");
  builder.set32(32, 3);
  check_refused(opener.open(builder.file), ErrorKind::kUnsupported, "crypt_method is 3");
}

TEST_CASE("qcow2 encrypted: an image that is said to be encrypted, and is not, is refused") {
  Qcow2Opener opener;
  opener.options.key_secret = "sec0";
  opener.options.key = SecretFile{.id = "sec0", .path = "/none"};
  CHECK(opener.open(Qcow2Builder({}).file));
  opener.options.encrypt_format = "luks";
  check_refused(opener.open(Qcow2Builder({}).file), ErrorKind::kUsage, "is not encrypted");
}

TEST_CASE("qcow2 encrypted: a LUKS header that cannot be where it is said to be is refused") {
  const auto check = [](uint64_t at, uint64_t value, ErrorKind kind, std::string_view words) {
    Encrypted image;
    image.builder.set64(image.pointer + at, value);
    check_refused(image.opener.open(image.builder.file), kind, words);
  };
  check(0, 0, ErrorKind::kMalformed, "offset is 0");
  check(0, 513, ErrorKind::kMalformed, "offset is 513");
  check(0, ~uint64_t{511}, ErrorKind::kTruncated, "ends beyond the end of the file");
  check(0, 512, ErrorKind::kMalformed, "no LUKS header");
  check(8, 100, ErrorKind::kMalformed, "has 100 bytes");
  check(8, (16 << 20) + 1, ErrorKind::kLimit, "length is 16777217");
  check(8, 16 << 20, ErrorKind::kTruncated, "ends beyond the end of the file");

  Encrypted short_pointer;
  short_pointer.builder.set32(short_pointer.pointer - 4, 8);
  check_refused(short_pointer.opener.open(short_pointer.builder.file), ErrorKind::kMalformed,
                "has 8 bytes, not 16");
  Encrypted not_encrypted;
  not_encrypted.builder.set32(32, 0);
  check_refused(not_encrypted.opener.open(not_encrypted.builder.file), ErrorKind::kMalformed,
                "only images with crypt_method 2");
}

}  // namespace underlay
