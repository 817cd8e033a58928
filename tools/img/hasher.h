// Digests of bytes, computed by OpenSSL's libcrypto.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include "io/bytes.h"
#include "io/error.h"

struct evp_md_st;
struct evp_md_ctx_st;

namespace underlay::img {

// A digest, or a salt: a few bytes, as they are.
class ShortBytes {
 public:
  static constexpr size_t kCapacity = 256;  // a salt's in a hash tree; digests have at most 64

  ShortBytes() = default;
  // REQUIRES: size <= kCapacity.
  explicit ShortBytes(size_t size) : size_(size) {}
  static ShortBytes copy_of(ByteSpan bytes);
  // Of hexadecimal digits in either case. nullopt for anything else, and for more than kCapacity
  // bytes.
  static std::optional<ShortBytes> from_hex(std::string_view text);

  std::string to_hex() const;  // lower case
  size_t size() const { return size_; }
  ByteSpan bytes() const { return {bytes_.data(), size_}; }
  MutableByteSpan bytes() { return {bytes_.data(), size_}; }
  bool operator==(const ShortBytes& other) const;

 private:
  std::array<std::byte, kCapacity> bytes_{};
  size_t size_ = 0;
};

struct HashAlgorithm {
  std::string_view name;  // "sha256"
  size_t bytes = 0;       // of a digest
};

// Those that sha1sum, sha224sum, ... compute: "sha1, sha224, sha256 (default), ... or sha512".
std::string hash_algorithm_names();
inline constexpr std::string_view kDefaultHash = "sha256";
// Null when it is none of them.
const HashAlgorithm* find_hash_algorithm(std::string_view name);

// Used by one thread at a time.
class Hasher {
 public:
  // Loads libcrypto. kUnsupported when it, or the algorithm in it, is not there.
  static Result<Hasher> create(const HashAlgorithm& algorithm);

  // Starts anew. Needed before the first update(), too.
  Result<void> begin();
  Result<void> update(ByteSpan bytes);
  // As update() of so many zeros.
  Result<void> update_zeros(uint64_t count);
  // REQUIRES: out.size() == digest_bytes().
  Result<void> finish(MutableByteSpan out);
  Result<ShortBytes> finish();

  size_t digest_bytes() const { return algorithm_.bytes; }

 private:
  struct Free {
    void operator()(evp_md_st* digest) const;
    void operator()(evp_md_ctx_st* context) const;
  };
  explicit Hasher(const HashAlgorithm& algorithm) : algorithm_(algorithm) {}

  HashAlgorithm algorithm_;
  std::unique_ptr<evp_md_st, Free> digest_;
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

}  // namespace underlay::img
