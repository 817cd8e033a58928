// TLS in the kernel (kTLS, module "tls"): a TCP socket whose records the kernel itself encrypts and
// decrypts, so that what knows nothing of TLS, such as the kernel's nbd client, may use it. The
// handshake is made by somebody else (io/tls_client.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

enum class TlsVersion : uint8_t { k12, k13 };
const char* name_of(TlsVersion version);

// What one direction of a connection is encrypted with: AES-GCM. Wiped when it goes.
struct KernelTlsKey {
  KernelTlsKey() = default;
  KernelTlsKey(const KernelTlsKey&) = delete;
  KernelTlsKey& operator=(const KernelTlsKey&) = delete;
  ~KernelTlsKey();

  static constexpr size_t kAes128 = 16;  // bytes
  static constexpr size_t kAes256 = 32;

  TlsVersion version = TlsVersion::k12;
  size_t key_bytes = kAes256;  // or kAes128
  std::array<std::byte, kAes256> key{};
  std::array<std::byte, 4> salt{};      // the part of the nonce that never changes
  std::array<std::byte, 8> nonce{};     // TLS 1.2: of the next record; 1.3: the rest of the IV
  std::array<std::byte, 8> sequence{};  // number of the next record, big-endian
};

// Asks for TLS on a connected TCP socket, which stays as it was until it is given keys.
// kUnsupported, saying what to do, when the kernel has no TLS or the socket is none of TCP's.
Result<void> prepare_kernel_tls(int socket);

// From the next record on, in one direction. REQUIRES: prepare_kernel_tls(), and nothing of that
// record has been sent or received. kUnsupported when the kernel lacks the version or the cipher.
enum class KernelTlsDirection : uint8_t { kSend, kReceive };
Result<void> set_kernel_tls_key(int socket, KernelTlsDirection direction, const KernelTlsKey& key);

}  // namespace underlay
