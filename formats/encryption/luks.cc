#include "formats/encryption/luks.h"

#include <libcryptsetup.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <string>

#include "formats/encryption/crypto_on_demand.h"
#include "formats/encryption/luks_layout.h"
#include "io/unique_fd.h"

namespace underlay {
namespace {

// libcryptsetup works on files: one in memory, with the header and nothing else.
Result<UniqueFd> header_file(ByteSpan container) {
  UniqueFd file(::memfd_create("luks-header", MFD_CLOEXEC));
  if (!file.valid()) return fail_errno(errno, "cannot make a file in memory");
  while (!container.empty()) {
    const ssize_t put = ::write(file.get(), container.data(), container.size());
    if (put < 0) return fail_errno(errno, "cannot write to a file in memory");
    container = container.subspan(static_cast<size_t>(put));
  }
  return file;
}

struct FreeDevice {
  void operator()(crypt_device* device) const { ::crypt_free(device); }
};
using Device = std::unique_ptr<crypt_device, FreeDevice>;

// Keeps what the library says last, which would go to the terminal otherwise.
void keep_last_line(int level, const char* text, void* kept) {
  if (level == CRYPT_LOG_ERROR) *static_cast<std::string*>(kept) = text;
}

Failure refused(int status, const std::string& said) {
  std::string_view reason = said;
  while (reason.ends_with('\n')) reason.remove_suffix(1);
  return fail_errno(-status, "libcryptsetup cannot read the LUKS header{}{}",
                    reason.empty() ? "" : ": ", printable(reason, 200));
}

Result<Secret> volume_key(const std::string& path, const LuksHeader& header,
                          const Secret& passphrase) {
  std::string said;
  crypt_device* made = nullptr;
  int status = ::crypt_init(&made, path.c_str());
  const Device device(made);
  if (status < 0) return refused(status, said);
  ::crypt_set_log_callback(device.get(), keep_last_line, &said);
  status = ::crypt_load(device.get(), CRYPT_LUKS1, nullptr);
  if (status < 0) return refused(status, said);
  const int size = ::crypt_get_volume_key_size(device.get());
  if (size < 0 || static_cast<uint32_t>(size) != header.key_bytes) {
    return fail(ErrorKind::kMalformed, "libcryptsetup finds a key of {} bytes, not {}", size,
                header.key_bytes);
  }
  Secret key(header.key_bytes);
  size_t key_size = key.size();
  // Null would ask for a key that the library has already.
  const char* words =
      passphrase.size() == 0 ? "" : reinterpret_cast<const char*>(passphrase.bytes().data());
  status = ::crypt_volume_key_get(device.get(), CRYPT_ANY_SLOT,
                                  reinterpret_cast<char*>(key.bytes().data()), &key_size, words,
                                  passphrase.size());
  if (status == -EPERM) {
    return fail(ErrorKind::kDenied, "the passphrase opens none of its LUKS key slots");
  }
  if (status == -ENOENT) return fail(ErrorKind::kMalformed, "no LUKS key slot is in use");
  if (status < 0) return refused(status, said);
  return key;
}

}  // namespace

Result<std::unique_ptr<const SectorCipher>> unlock_luks(ByteSpan container,
                                                        const Secret& passphrase) {
  const LuksHeader header = TRY(parse_luks_header(container));
  TRY(load_crypto_libraries());
  const UniqueFd file = TRY(header_file(container));
  // libcryptsetup is not made for several threads.
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  const Secret key =
      TRY(volume_key(fmt::format("/proc/self/fd/{}", file.get()), header, passphrase));
  return SectorCipher::create(header.cipher, key);
}

}  // namespace underlay
