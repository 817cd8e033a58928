// Decryption of sectors, beside the known answers of the ciphers' specifications.
#include "formats/encryption/sector_cipher.h"

#include <doctest/doctest.h>

#include <algorithm>

namespace underlay {
namespace {

Secret key_of(size_t size) {
  Secret key(size);
  for (size_t i = 0; i < size; ++i) key.bytes()[i] = static_cast<std::byte>(i * 7 + 1);
  return key;
}

std::unique_ptr<const SectorCipher> cipher_of(std::string_view mode, uint32_t key_bytes) {
  const CipherSpec spec = parse_cipher_spec("aes", mode, key_bytes).value();
  return SectorCipher::create(spec, key_of(key_bytes)).value();
}

using Bytes = std::vector<std::byte>;

Bytes decrypted(const SectorCipher& cipher, uint64_t sector, Bytes bytes) {
  REQUIRE(cipher.decrypt(sector, bytes));
  return bytes;
}

Bytes pattern(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 31 + i / 256);
  return bytes;
}

// What the hexadecimal digits say.
Bytes from_hex(std::string_view digits) {
  Bytes bytes;
  for (size_t i = 0; i + 1 < digits.size(); i += 2) {
    bytes.push_back(
        static_cast<std::byte>(std::stoul(std::string(digits.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

}  // namespace

TEST_CASE("sector cipher: AES-128-XTS gives the known answer of IEEE 1619, vector 4") {
  // Key 1, key 2, data unit 0; the first and last bytes of 512 that count from 0.
  Secret key(32);
  const Bytes words = from_hex("2718281828459045235360287471352631415926535897932384626433832795");
  std::ranges::copy(words, key.bytes().begin());
  const auto cipher =
      SectorCipher::create(parse_cipher_spec("aes", "xts-plain64", 32).value(), key).value();
  Bytes plain(512);
  for (size_t i = 0; i < plain.size(); ++i) plain[i] = static_cast<std::byte>(i & 0xff);
  Bytes stored = from_hex("27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c");
  stored.resize(512);
  const Bytes got = decrypted(*cipher, 0, stored);
  CHECK(std::equal(got.begin(), got.begin() + 32, plain.begin()));
}

TEST_CASE("sector cipher: a sector depends on its number, and on nothing beside it") {
  struct Kind {
    const char* mode;
    unsigned key_bytes;
  };
  for (const Kind& kind :
       {Kind{"xts-plain64", 64}, Kind{"xts-plain64", 32}, Kind{"cbc-plain64", 32},
        Kind{"cbc-plain64", 24}, Kind{"cbc-plain64", 16}, Kind{"xts-plain", 64}}) {
    CAPTURE(kind.mode);
    CAPTURE(kind.key_bytes);
    const auto cipher = cipher_of(kind.mode, kind.key_bytes);
    const Bytes stored = pattern(3 * 512);
    const Bytes all = decrypted(*cipher, 100, stored);
    for (size_t i = 0; i < 3; ++i) {
      const auto at = static_cast<ptrdiff_t>(i * 512);
      const Bytes part(stored.begin() + at, stored.begin() + at + 512);
      const Bytes alone = decrypted(*cipher, 100 + i, part);
      CHECK(std::equal(alone.begin(), alone.end(), all.begin() + at));
      CHECK(alone != decrypted(*cipher, 1000, part));
    }
  }
}

TEST_CASE("sector cipher: plain64 counts 64 bits of the sector's number, plain 32") {
  const Bytes stored = pattern(512);
  const uint64_t far = (uint64_t{1} << 32) + 5;
  const auto plain64 = cipher_of("xts-plain64", 64);
  const auto plain = cipher_of("xts-plain", 64);
  CHECK(decrypted(*plain64, far, stored) != decrypted(*plain64, 5, stored));
  CHECK(decrypted(*plain, far, stored) == decrypted(*plain, 5, stored));
  CHECK(decrypted(*plain, 5, stored) == decrypted(*plain64, 5, stored));
}

TEST_CASE("sector cipher: what is not served is refused by its name") {
  struct Row {
    const char* cipher;
    const char* mode;
    uint32_t key_bytes;
  };
  for (const Row& row : {Row{"serpent", "xts-plain64", 64},
                         {"aes", "cbc-essiv:sha256", 32},
                         {"aes", "xts-plain64", 48},
                         {"aes", "xts-plain64be", 64},
                         {"aes", "xts", 64},
                         {"aes", "ecb-plain64", 32},
                         {"", "", 0},
                         {"aes", "cbc-plain64", 64}}) {
    const auto spec = parse_cipher_spec(row.cipher, row.mode, row.key_bytes);
    REQUIRE_FALSE(spec);
    CHECK(spec.error().kind == ErrorKind::kUnsupported);
    CHECK(spec.error().message.find(fmt::format("{}-{}", row.cipher, row.mode)) !=
          std::string::npos);
  }
}

}  // namespace underlay
