// Secrets (passphrases) that the operator keeps in files: qemu's --object secret.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

// Where a secret is to be found.
struct SecretFile {
  std::string id;       // what options call it
  std::string path;     // of the file; all of its bytes count, a newline at the end, too
  bool base64 = false;  // the file has the secret's bytes in base64
};

// Bytes that are wiped from memory when they are no longer needed.
class Secret {
 public:
  explicit Secret(size_t size) : bytes_(size) {}
  Secret(Secret&& other) noexcept : bytes_(std::move(other.bytes_)) { other.bytes_.clear(); }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  Secret& operator=(Secret&&) = delete;
  ~Secret();

  // Forgets all but the first `size` bytes. REQUIRES: size <= bytes().size().
  void shrink(size_t size);
  ByteSpan bytes() const { return bytes_; }
  MutableByteSpan bytes() { return bytes_; }
  size_t size() const { return bytes_.size(); }

 private:
  std::vector<std::byte> bytes_;  // never grows: that would leave a copy behind
};

inline constexpr size_t kMaxSecretBytes = 64 << 10;  // of the file

// "secret,id=ID,file=FILE[,format=raw|base64]", as --object takes it. A comma in a value is written
// twice. Other types of objects, and secrets that are not in a plain file, fail with kUnsupported,
// what is no valid use with kUsage. No message holds what might be a secret.
Result<SecretFile> parse_secret_object(std::string_view option, std::string_view text);

// The one that options call `id`; `option` is for the message. Fails with kUsage when there is
// none.
Result<SecretFile> find_secret(std::string_view option, std::string_view id,
                               std::span<const SecretFile> secrets);

// Reads the file. May block.
Result<Secret> read_secret(const SecretFile& file);

}  // namespace underlay
