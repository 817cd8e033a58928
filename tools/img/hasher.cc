#include "tools/img/hasher.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cassert>

#include "formats/encryption/crypto_on_demand.h"
#include "io/hex_digit.h"

namespace underlay::img {
namespace {

constexpr std::array kAlgorithms{HashAlgorithm{"sha1", 20}, HashAlgorithm{"sha224", 28},
                                 HashAlgorithm{"sha256", 32}, HashAlgorithm{"sha384", 48},
                                 HashAlgorithm{"sha512", 64}};

// Few enough to stay in the processor's cache.
constexpr std::array<std::byte, 16 << 10> kZeros{};

Failure failed() { return fail(ErrorKind::kIo, "OpenSSL cannot compute the digest"); }

}  // namespace

ShortBytes ShortBytes::copy_of(ByteSpan bytes) {
  assert(bytes.size() <= kCapacity);
  ShortBytes copy(bytes.size());
  std::copy(bytes.begin(), bytes.end(), copy.bytes_.begin());
  return copy;
}

std::optional<ShortBytes> ShortBytes::from_hex(std::string_view text) {
  if (text.size() % 2 != 0 || text.size() / 2 > kCapacity) return std::nullopt;
  ShortBytes read(text.size() / 2);
  for (size_t i = 0; i < read.size_; ++i) {
    const int high = hex_digit(text[2 * i]);
    const int low = hex_digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    read.bytes_[i] = static_cast<std::byte>(high << 4 | low);
  }
  return read;
}

std::string ShortBytes::to_hex() const {
  std::string text;
  for (const std::byte byte : bytes()) text += fmt::format("{:02x}", byte);
  return text;
}

bool ShortBytes::operator==(const ShortBytes& other) const {
  return std::ranges::equal(bytes(), other.bytes());
}

std::string hash_algorithm_names() {
  std::string names;
  for (const HashAlgorithm& algorithm : kAlgorithms) {
    if (&algorithm == &kAlgorithms.back()) {
      names += " or ";
    } else if (!names.empty()) {
      names += ", ";
    }
    names += algorithm.name;
    if (algorithm.name == kDefaultHash) names += " (default)";
  }
  return names;
}

const HashAlgorithm* find_hash_algorithm(std::string_view name) {
  const auto found = std::ranges::find(kAlgorithms, name, &HashAlgorithm::name);
  return found == kAlgorithms.end() ? nullptr : &*found;
}

void Hasher::Free::operator()(evp_md_st* digest) const { ::EVP_MD_free(digest); }
void Hasher::Free::operator()(evp_md_ctx_st* context) const { ::EVP_MD_CTX_free(context); }

Result<Hasher> Hasher::create(const HashAlgorithm& algorithm) {
  TRY(load_libcrypto());
  Hasher hasher(algorithm);
  hasher.digest_.reset(::EVP_MD_fetch(nullptr, std::string(algorithm.name).c_str(), nullptr));
  hasher.context_.reset(::EVP_MD_CTX_new());
  if (!hasher.digest_ || !hasher.context_) {
    return fail(ErrorKind::kUnsupported, "OpenSSL on this machine does not provide {}",
                algorithm.name);
  }
  return hasher;
}

Result<void> Hasher::begin() {
  if (::EVP_DigestInit_ex2(context_.get(), digest_.get(), nullptr) != 1) return failed();
  return {};
}

Result<void> Hasher::update(ByteSpan bytes) {
  if (::EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) != 1) return failed();
  return {};
}

Result<void> Hasher::update_zeros(uint64_t count) {
  while (count > 0) {
    const uint64_t part = std::min<uint64_t>(count, kZeros.size());
    TRY(update(ByteSpan(kZeros).first(static_cast<size_t>(part))));
    count -= part;
  }
  return {};
}

Result<void> Hasher::finish(MutableByteSpan out) {
  assert(out.size() == algorithm_.bytes);
  unsigned size = 0;
  auto* const to = reinterpret_cast<unsigned char*>(out.data());
  if (::EVP_DigestFinal_ex(context_.get(), to, &size) != 1 || size != out.size()) return failed();
  return {};
}

Result<ShortBytes> Hasher::finish() {
  ShortBytes digest(algorithm_.bytes);
  TRY(finish(digest.bytes()));
  return digest;
}

}  // namespace underlay::img
