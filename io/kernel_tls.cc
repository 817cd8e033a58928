#include "io/kernel_tls.h"

#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cassert>
#include <cerrno>
#include <cstring>

namespace underlay {
namespace {

Failure unsupported(int error, std::string_view what) {
  return Failure(Error{.kind = ErrorKind::kUnsupported,
                       .sys_errno = error,
                       .file = {},
                       .offset = std::nullopt,
                       .message = std::string(what)});
}

// `Info`: what the kernel calls struct tls12_crypto_info_*, also for TLS 1.3.
template <class Info>
int set_key(int socket, int option, uint16_t cipher, const KernelTlsKey& key) {
  Info info{};
  info.info.version = key.version == TlsVersion::k12 ? TLS_1_2_VERSION : TLS_1_3_VERSION;
  info.info.cipher_type = cipher;
  static_assert(sizeof(info.iv) == sizeof(key.nonce) && sizeof(info.salt) == sizeof(key.salt) &&
                sizeof(info.rec_seq) == sizeof(key.sequence) &&
                sizeof(info.key) <= sizeof(key.key));
  assert(key.key_bytes == sizeof(info.key));
  std::memcpy(info.iv, key.nonce.data(), sizeof(info.iv));
  std::memcpy(info.key, key.key.data(), sizeof(info.key));
  std::memcpy(info.salt, key.salt.data(), sizeof(info.salt));
  std::memcpy(info.rec_seq, key.sequence.data(), sizeof(info.rec_seq));
  const int status = ::setsockopt(socket, SOL_TLS, option, &info, sizeof(info)) == 0 ? 0 : errno;
  ::explicit_bzero(&info, sizeof(info));
  return status;
}

}  // namespace

const char* name_of(TlsVersion version) {
  return version == TlsVersion::k12 ? "TLS 1.2" : "TLS 1.3";
}

KernelTlsKey::~KernelTlsKey() { ::explicit_bzero(key.data(), key.size()); }

Result<void> prepare_kernel_tls(int socket) {
  constexpr char kTls[] = "tls";
  if (::setsockopt(socket, IPPROTO_TCP, TCP_ULP, kTls, sizeof(kTls)) == 0) return {};
  switch (errno) {
    case ENOENT:
      return unsupported(
          0,
          "the kernel has no TLS for its nbd client: load it with 'modprobe tls', or "
          "use nbd:// over a network that is trusted, or a tunnel");
    case ENOPROTOOPT:
    case EOPNOTSUPP:
      return unsupported(0, "the kernel has TLS for TCP connections only");
    default:
      return fail_errno(errno, "TLS of the kernel cannot be had for the connection");
  }
}

Result<void> set_kernel_tls_key(int socket, KernelTlsDirection direction, const KernelTlsKey& key) {
  const int option = direction == KernelTlsDirection::kSend ? TLS_TX : TLS_RX;
  const bool short_key = key.key_bytes == KernelTlsKey::kAes128;
  const int error =
      short_key
          ? set_key<tls12_crypto_info_aes_gcm_128>(socket, option, TLS_CIPHER_AES_GCM_128, key)
          : set_key<tls12_crypto_info_aes_gcm_256>(socket, option, TLS_CIPHER_AES_GCM_256, key);
  if (error == 0) return {};
  return unsupported(error,
                     fmt::format("the kernel does not encrypt {} with AES-{}-GCM: it may lack "
                                 "the cipher, which 'modprobe -a gcm ctr ghash-generic' loads",
                                 name_of(key.version), 8 * key.key_bytes));
}

}  // namespace underlay
