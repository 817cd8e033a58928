// Any bytes as changes to a LUKS container that "open sesame" unlocks: unlocking and describing it
// must end in a cipher, or in an error. Aborts when a rule breaks.
//
//   changes: u16 offset, u8 length, bytes
#include <algorithm>
#include <nlohmann/json.hpp>

#include "formats/encryption/luks.h"
#include "formats/encryption/luks_facts.h"
#include "formats/encryption/luks_layout.h"
#include "fuzz/rules.h"
#include "tests/support/luks_builder.h"

namespace underlay {
namespace {

constexpr std::string_view kPassphrase = "open sesame";
// Deriving a key for as long as a header may ask is no bug, but the fuzzer has no minute for it.
constexpr uint32_t kMaxIterations = 2000;

void limit_iterations(std::vector<std::byte>& container, size_t at) {
  if (load_be<uint32_t>(container, at) <= kMaxIterations) return;
  store_be(MutableByteSpan(container), at, kMaxIterations);
}

std::vector<std::byte> changed_container(const LuksBuilder& builder, ByteSpan changes) {
  std::vector<std::byte> container = builder.container;
  ByteReader reader(changes);
  while (reader.remaining() > 3) {
    const size_t offset = reader.le<uint16_t>();
    const size_t length = std::min<size_t>(reader.le<uint8_t>(), reader.remaining());
    std::ranges::copy(reader.bytes(length),
                      container.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  limit_iterations(container, 164);
  for (size_t slot = 0; slot < LuksHeader::kSlots; ++slot) {
    limit_iterations(container, LuksBuilder::kFirstSlot + slot * 48 + 4);
  }
  return container;
}

void run(ByteSpan changes) {
  static const LuksBuilder builder(kPassphrase);
  const std::vector<std::byte> container = changed_container(builder, changes);
  const auto facts = luks_facts(container);
  if (!facts) check_error(facts.error());
  Secret passphrase(kPassphrase.size());
  std::ranges::copy(as_bytes(kPassphrase), passphrase.bytes().begin());
  const auto cipher = unlock_luks(container, passphrase);
  if (!cipher) return check_error(cipher.error());
  require(facts.has_value(), "what can be unlocked can be described");
  const std::vector<std::byte> plain(1024, std::byte{0x5a});
  std::vector<std::byte> stored = builder.encrypted(7, plain);
  require((*cipher)->decrypt(7, stored) && stored == plain, "only the right key is a key");
}

}  // namespace
}  // namespace underlay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  underlay::run(std::as_bytes(std::span(data, size)));
  return 0;
}
