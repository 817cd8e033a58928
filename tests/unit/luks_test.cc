// Unlocking LUKS 1 containers, good ones and damaged ones.
#include "formats/encryption/luks.h"

#include <doctest/doctest.h>

#include "formats/encryption/luks_layout.h"
#include "tests/support/luks_builder.h"

namespace underlay {
namespace {

using Bytes = LuksBuilder::Bytes;

constexpr std::string_view kPassphrase = "open sesame";

Secret secret_of(std::string_view text) {
  Secret secret(text.size());
  std::ranges::copy(as_bytes(text), secret.bytes().begin());
  return secret;
}

auto unlock(const Bytes& container, std::string_view passphrase = kPassphrase) {
  return unlock_luks(container, secret_of(passphrase));
}

// The failure of a container that was changed by `damage`.
template <class Damage>
void check_damage(Damage&& damage, ErrorKind kind, std::string_view words) {
  LuksBuilder builder(kPassphrase);
  damage(builder);
  const auto cipher = unlock(builder.container);
  REQUIRE_FALSE(cipher);
  const std::string line = cipher.error().to_string();
  CAPTURE(line);
  CHECK(cipher.error().kind == kind);
  CHECK(line.find(words) != std::string::npos);
  CHECK(line.find('\n') == std::string::npos);
}

}  // namespace

TEST_CASE("luks: the passphrase gives what decrypts the payload") {
  const LuksBuilder builder(kPassphrase);
  const auto cipher = unlock(builder.container);
  REQUIRE_MESSAGE(cipher, cipher.error().to_string());
  Bytes plain(1024);
  for (size_t i = 0; i < plain.size(); ++i) plain[i] = static_cast<std::byte>(i * 13);
  Bytes stored = builder.encrypted(uint64_t{1} << 33, plain);
  CHECK(stored != plain);
  REQUIRE((*cipher)->decrypt(uint64_t{1} << 33, stored));
  CHECK(stored == plain);
}

TEST_CASE("luks: another passphrase is refused, and not repeated") {
  const LuksBuilder builder(kPassphrase);
  for (const std::string_view wrong : {"open sesame\n", "Open sesame", "", "opensesame"}) {
    const auto cipher = unlock(builder.container, wrong);
    REQUIRE_FALSE(cipher);
    CHECK(cipher.error().kind == ErrorKind::kDenied);
    if (!wrong.empty()) CHECK(cipher.error().to_string().find(wrong) == std::string::npos);
  }
}

TEST_CASE("luks: what is no container of version 1 is refused") {
  check_damage([](LuksBuilder& builder) { builder.container.resize(591); }, ErrorKind::kMalformed,
               "has 591 bytes");
  check_damage([](LuksBuilder& builder) { builder.set_text(0, "SKUL"); }, ErrorKind::kMalformed,
               "no LUKS header");
  check_damage(
      [](LuksBuilder& builder) { store_be(MutableByteSpan(builder.container), 6, uint16_t{2}); },
      ErrorKind::kUnsupported, "version 2");
}

TEST_CASE("luks: a cipher that is not served is refused by its name") {
  check_damage([](LuksBuilder& builder) { builder.set_text(8, "serpent"); },
               ErrorKind::kUnsupported, "serpent-xts-plain64 with a key of 64 bytes");
  check_damage([](LuksBuilder& builder) { builder.set_text(40, std::string(32, 'm')); },
               ErrorKind::kUnsupported, std::string(32, 'm'));
  check_damage([](LuksBuilder& builder) { builder.set32(108, 0xffffffff); },
               ErrorKind::kUnsupported, "a key of 4294967295 bytes");
  check_damage([](LuksBuilder& builder) { builder.set_text(72, "md17\0"); }, ErrorKind::kIo,
               "libcryptsetup cannot read the LUKS header");
}

TEST_CASE("luks: what a header asks for is bounded") {
  const auto slot = [](uint64_t at, uint32_t value) {
    return [=](LuksBuilder& builder) { builder.set32(LuksBuilder::kFirstSlot + at, value); };
  };
  constexpr uint32_t kMore = LuksHeader::kMaxIterations + 1;
  check_damage([](LuksBuilder& builder) { builder.set32(164, kMore); }, ErrorKind::kLimit,
               "mk-digest-iter is 50000001");
  check_damage([](LuksBuilder& builder) { builder.set32(164, 0); }, ErrorKind::kLimit,
               "mk-digest-iter is 0");
  check_damage(slot(4, kMore), ErrorKind::kLimit, "key slot 0: iterations is 50000001");
  check_damage(slot(4, 0), ErrorKind::kLimit, "iterations is 0");
  check_damage(slot(44, 4001), ErrorKind::kMalformed, "stripes is 4001");
  check_damage(slot(40, 0), ErrorKind::kMalformed, "key-material-offset is 0");
  check_damage(slot(40, 0xffffffff), ErrorKind::kMalformed, "key-material-offset is 4294967295");
}

TEST_CASE("luks: damaged key material and a container without a key are refused") {
  check_damage([](LuksBuilder& builder) { builder.container[5000] ^= std::byte{1}; },
               ErrorKind::kDenied, "opens none of its LUKS key slots");
  check_damage([](LuksBuilder& builder) { builder.container[112] ^= std::byte{1}; },
               ErrorKind::kDenied, "opens none");
  check_damage([](LuksBuilder& builder) { builder.set32(LuksBuilder::kFirstSlot, 0xdead); },
               ErrorKind::kMalformed, "no LUKS key slot is in use");
}

}  // namespace underlay
