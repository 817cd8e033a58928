#include "tests/support/luks_builder.h"

#include <openssl/evp.h>

#include <algorithm>
#include <memory>
#include <stdexcept>

namespace underlay {
namespace {

using Bytes = LuksBuilder::Bytes;

constexpr size_t kKeyBytes = 64;
constexpr size_t kStripes = 4000;
constexpr size_t kHashBytes = 32;
constexpr int kIterations = 10;
constexpr uint64_t kMaterialSector = 8;

unsigned char* raw(Bytes& bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }
const unsigned char* raw(ByteSpan bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
void require(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(what);
}

Bytes derived(ByteSpan secret, ByteSpan salt, size_t size) {
  Bytes key(size);
  require(
      PKCS5_PBKDF2_HMAC(reinterpret_cast<const char*>(secret.data()),
                        static_cast<int>(secret.size()), raw(salt), static_cast<int>(salt.size()),
                        kIterations, EVP_sha256(), static_cast<int>(size), raw(key)) == 1,
      "PKCS5_PBKDF2_HMAC");
  return key;
}

Bytes encrypt(ByteSpan key, uint64_t sector, ByteSpan plain) {
  const std::unique_ptr<EVP_CIPHER_CTX, void (*)(EVP_CIPHER_CTX*)> context(EVP_CIPHER_CTX_new(),
                                                                           EVP_CIPHER_CTX_free);
  Bytes stored(plain.size());
  for (size_t at = 0; at < plain.size(); at += 512, ++sector) {
    Bytes iv(16);
    for (size_t i = 0; i < 8; ++i) iv[i] = static_cast<std::byte>(sector >> 8 * i & 0xff);
    int size = 0;
    require(EVP_EncryptInit_ex(context.get(), EVP_aes_256_xts(), nullptr, raw(key), raw(iv)) == 1 &&
                EVP_EncryptUpdate(context.get(), raw(stored) + at, &size, raw(plain.subspan(at)),
                                  512) == 1,
            "EVP_Encrypt");
  }
  return stored;
}

// "Diffuse" of the anti-forensic splitter: the hash of each block behind its number.
Bytes diffused(const Bytes& bytes) {
  Bytes all;
  for (size_t at = 0; at < bytes.size(); at += kHashBytes) {
    Bytes block(4 + kHashBytes);
    store_be(MutableByteSpan(block), 0, static_cast<uint32_t>(at / kHashBytes));
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(at), kHashBytes, block.begin() + 4);
    Bytes hash(kHashBytes);
    unsigned size = 0;
    require(EVP_Digest(block.data(), block.size(), raw(hash), &size, EVP_sha256(), nullptr) == 1,
            "EVP_Digest");
    all.insert(all.end(), hash.begin(), hash.end());
  }
  return all;
}

// "AFSplit", with zeros for the stripes that may be anything.
Bytes split(ByteSpan key) {
  Bytes stripes((kStripes - 1) * kKeyBytes);
  Bytes mixed(kKeyBytes);
  for (size_t i = 0; i + 1 < kStripes; ++i) mixed = diffused(mixed);
  for (size_t i = 0; i < kKeyBytes; ++i) stripes.push_back(mixed[i] ^ key[i]);
  return stripes;
}

}  // namespace

LuksBuilder::LuksBuilder(std::string_view passphrase) : key_(kKeyBytes) {
  for (size_t i = 0; i < key_.size(); ++i) key_[i] = static_cast<std::byte>(i * 5 + 3);
  const Bytes salt(32, std::byte{0x5a});
  const Bytes slot_key = derived(as_bytes(passphrase), salt, kKeyBytes);
  const Bytes material = encrypt(slot_key, 0, split(key_));
  const Bytes digest = derived(key_, salt, 20);
  const uint64_t slot_sectors = 504;  // aligned to 4096 bytes, as others make them

  container.resize((kMaterialSector + 8 * slot_sectors) * 512);
  set_text(0, "LUKS\xba\xbe");
  store_be(MutableByteSpan(container), 6, uint16_t{1});
  set_text(8, "aes");
  set_text(40, "xts-plain64");
  set_text(72, "sha256");
  set32(104, static_cast<uint32_t>(container.size() / 512));
  set32(108, kKeyBytes);
  std::ranges::copy(digest, container.begin() + 112);
  std::ranges::copy(salt, container.begin() + 132);
  set32(164, kIterations);
  set_text(168, "01234567-89ab-cdef-0123-456789abcdef");
  for (uint64_t i = 0; i < 8; ++i) {
    const uint64_t slot = kFirstSlot + 48 * i;
    set32(slot, i == 0 ? 0x00ac71f3 : 0x0000dead);
    set32(slot + 4, i == 0 ? kIterations : 0);
    std::ranges::copy(salt, container.begin() + static_cast<ptrdiff_t>(slot + 8));
    set32(slot + 40, static_cast<uint32_t>(kMaterialSector + i * slot_sectors));
    set32(slot + 44, kStripes);
  }
  std::ranges::copy(material, container.begin() + kMaterialSector * 512);
}

LuksBuilder::Bytes LuksBuilder::encrypted(uint64_t first_sector, ByteSpan plain) const {
  return encrypt(key_, first_sector, plain);
}

void LuksBuilder::set_text(uint64_t offset, std::string_view text) {
  std::ranges::copy(as_bytes(text), container.begin() + static_cast<ptrdiff_t>(offset));
}

}  // namespace underlay
