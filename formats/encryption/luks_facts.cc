#include "formats/encryption/luks_facts.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "formats/encryption/luks_layout.h"

namespace underlay {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kSectorBytes = 512;

// QEMU's name of a cipher says how many bits of the key are its own: XTS takes two keys.
std::string cipher_name(std::string_view cipher, std::string_view mode, uint32_t key_bytes) {
  const uint64_t bits = uint64_t{key_bytes} * 8 / (mode == "xts" ? 2 : 1);
  return fmt::format("{}-{}", cipher, bits);
}

// "xts-plain64", "cbc-essiv:sha256": the mode, how it makes initialisation vectors, and with which
// hash.
struct CipherMode {
  std::string_view mode, generator, hash;
};
CipherMode split_mode(std::string_view text) {
  CipherMode split;
  const size_t dash = text.find('-');
  split.mode = text.substr(0, dash);
  if (dash == std::string_view::npos) return split;
  text.remove_prefix(dash + 1);
  const size_t colon = text.find(':');
  split.generator = text.substr(0, colon);
  if (colon != std::string_view::npos) split.hash = text.substr(colon + 1);
  return split;
}

Json slot_facts(const LuksKeySlot& slot) {
  Json facts = {{"active", slot.active}};
  if (slot.active) facts["iters"] = slot.iterations;
  facts["key-offset"] = slot.material_sector * kSectorBytes;
  if (slot.active) facts["stripes"] = slot.stripes;
  return facts;
}

}  // namespace

Result<Json> luks_facts(ByteSpan header) {
  const LuksFields fields = TRY(load_luks_header(header));
  const CipherMode mode = split_mode(fields.cipher_mode);
  Json facts;
  facts["ivgen-alg"] = mode.generator;
  facts["hash-alg"] = fields.hash_spec;
  facts["cipher-alg"] = cipher_name(fields.cipher_name, mode.mode, fields.key_bytes);
  facts["uuid"] = fields.uuid;
  if (!mode.hash.empty()) facts["ivgen-hash-alg"] = mode.hash;
  facts["format"] = "luks";
  facts["cipher-mode"] = mode.mode;
  Json slots = Json::array();
  for (const LuksKeySlot& slot : fields.slots) slots.push_back(slot_facts(slot));
  facts["slots"] = std::move(slots);
  facts["payload-offset"] = fields.payload_sector * kSectorBytes;
  facts["master-key-iters"] = fields.digest_iterations;
  return facts;
}

}  // namespace underlay
