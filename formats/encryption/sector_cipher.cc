#include "formats/encryption/sector_cipher.h"

#include <openssl/evp.h>

#include <array>
#include <cassert>
#include <limits>

#include "formats/encryption/crypto_on_demand.h"

namespace underlay {
namespace {

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { ::EVP_CIPHER_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

struct Served {
  std::string_view mode;
  CipherSpec spec;
};
constexpr std::array kServed = {
    Served{"xts", {.name = "AES-256-XTS", .key_bytes = 64}},
    Served{"xts", {.name = "AES-128-XTS", .key_bytes = 32}},
    Served{"cbc", {.name = "AES-256-CBC", .key_bytes = 32}},
    Served{"cbc", {.name = "AES-192-CBC", .key_bytes = 24}},
    Served{"cbc", {.name = "AES-128-CBC", .key_bytes = 16}},
};

unsigned char* raw(MutableByteSpan bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }
const unsigned char* raw(ByteSpan bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

// The number of the sector, little-endian, filled up with zeros.
using Iv = std::array<std::byte, 16>;
Iv iv_of(uint64_t sector, bool is_64_bits) {
  if (!is_64_bits) sector &= std::numeric_limits<uint32_t>::max();
  Iv iv{};
  for (size_t i = 0; i < 8; ++i) iv[i] = static_cast<std::byte>(sector >> 8 * i & 0xff);
  return iv;
}

}  // namespace

Result<CipherSpec> parse_cipher_spec(std::string_view cipher, std::string_view mode,
                                     uint32_t key_bytes) {
  const size_t dash = mode.find('-');
  const std::string_view iv = dash == std::string_view::npos ? "" : mode.substr(dash + 1);
  for (const Served& served : kServed) {
    const bool fits = cipher == "aes" && mode.substr(0, dash) == served.mode &&
                      key_bytes == served.spec.key_bytes && (iv == "plain64" || iv == "plain");
    if (!fits) continue;
    CipherSpec spec = served.spec;
    spec.iv_is_64_bits = iv == "plain64";
    return spec;
  }
  return fail(
      ErrorKind::kUnsupported,
      "its cipher is {}-{} with a key of {} bytes: only aes is served, in the modes xts and "
      "cbc with plain64 and plain; qemu-img convert makes an image with another one",
      printable(cipher, 32), printable(mode, 32), key_bytes);
}

struct SectorCipher::Keyed {
  Context context;
};

SectorCipher::SectorCipher(std::unique_ptr<Keyed> keyed, bool iv_is_64_bits)
    : keyed_(std::move(keyed)), iv_is_64_bits_(iv_is_64_bits) {}
SectorCipher::~SectorCipher() = default;

Result<std::unique_ptr<const SectorCipher>> SectorCipher::create(const CipherSpec& spec,
                                                                 const Secret& key) {
  assert(key.size() == spec.key_bytes);
  TRY(load_crypto_libraries());
  Context context(::EVP_CIPHER_CTX_new());
  EVP_CIPHER* cipher = ::EVP_CIPHER_fetch(nullptr, spec.name, nullptr);
  const bool ready =
      context && cipher != nullptr &&
      ::EVP_DecryptInit_ex2(context.get(), cipher, raw(key.bytes()), nullptr, nullptr) == 1 &&
      ::EVP_CIPHER_CTX_set_padding(context.get(), 0) == 1;
  if (cipher != nullptr) ::EVP_CIPHER_free(cipher);  // the context has its own hold on it
  if (!ready) {
    return fail(ErrorKind::kUnsupported, "OpenSSL on this machine does not provide {}", spec.name);
  }
  auto keyed = std::make_unique<Keyed>();
  keyed->context = std::move(context);
  return std::unique_ptr<const SectorCipher>(
      new SectorCipher(std::move(keyed), spec.iv_is_64_bits));
}

Result<void> SectorCipher::decrypt(uint64_t first_sector, MutableByteSpan bytes) const {
  assert(bytes.size() % kSectorBytes == 0);
  const auto failed = [] { return fail(ErrorKind::kIo, "OpenSSL cannot decrypt"); };
  const Context context(::EVP_CIPHER_CTX_new());
  if (!context || ::EVP_CIPHER_CTX_copy(context.get(), keyed_->context.get()) != 1) return failed();
  for (uint64_t sector = first_sector; !bytes.empty(); ++sector) {
    const Iv iv = iv_of(sector, iv_is_64_bits_);
    const MutableByteSpan part = bytes.first(kSectorBytes);
    int size = 0;
    if (::EVP_DecryptInit_ex2(context.get(), nullptr, nullptr, raw(ByteSpan(iv)), nullptr) != 1 ||
        ::EVP_DecryptUpdate(context.get(), raw(part), &size, raw(ByteSpan(part)),
                            static_cast<int>(part.size())) != 1 ||
        size != static_cast<int>(part.size())) {
      return failed();
    }
    bytes = bytes.subspan(kSectorBytes);
  }
  return {};
}

}  // namespace underlay
