#include "formats/encryption/secret.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "formats/comma_list.h"
#include "formats/encryption/crypto_on_demand.h"
#include "io/unique_fd.h"

namespace underlay {
namespace {

constexpr std::string_view kType = "secret";

Result<void> take_field(std::string_view option, std::string_view field, SecretFile& file) {
  const size_t equals = field.find('=');
  const std::string_view key = field.substr(0, equals);
  // What stands behind an unknown key is not repeated: it may be the secret.
  if (equals == std::string_view::npos) {
    return fail(ErrorKind::kUsage, "{}: a field of the secret is not KEY=VALUE", option);
  }
  const std::string_view value = field.substr(equals + 1);
  if (key == "id") {
    file.id = value;
  } else if (key == "file") {
    file.path = value;
  } else if (key == "format") {
    if (value != "raw" && value != "base64") {
      return fail(ErrorKind::kUsage, "{}: the secret's format is neither raw nor base64", option);
    }
    file.base64 = value == "base64";
  } else if (key == "data") {
    return fail(ErrorKind::kUnsupported,
                "{}: data= shows the secret to every user of this machine: put it into a file that "
                "only you can read, and say file=FILE",
                option);
  } else {
    return fail(ErrorKind::kUnsupported,
                "{}: a secret's \"{}\" is not supported: only id, file and format are", option,
                printable(key, 80));
  }
  return {};
}

Result<Secret> decode_base64(const Secret& text, const SecretFile& file) {
  TRY(load_crypto_libraries());
  // The decoder writes three bytes for each four, and passes over line ends.
  Secret decoded(text.size() / 4 * 3 + 3);
  struct Free {
    void operator()(EVP_ENCODE_CTX* context) const { ::EVP_ENCODE_CTX_free(context); }
  };
  const std::unique_ptr<EVP_ENCODE_CTX, Free> context(::EVP_ENCODE_CTX_new());
  if (!context) return fail(ErrorKind::kLimit, "no memory left");
  ::EVP_DecodeInit(context.get());
  auto* out = reinterpret_cast<unsigned char*>(decoded.bytes().data());
  int size = 0;
  int rest = 0;
  const int status = ::EVP_DecodeUpdate(context.get(), out, &size,
                                        reinterpret_cast<const unsigned char*>(text.bytes().data()),
                                        static_cast<int>(text.size()));
  if (status < 0 || ::EVP_DecodeFinal(context.get(), out + size, &rest) != 1) {
    return in_file(fail(ErrorKind::kMalformed, "secret \"{}\": is no base64 (format=base64)",
                        printable(file.id, 80)),
                   file.path);
  }
  decoded.shrink(static_cast<size_t>(size + rest));
  return decoded;
}

}  // namespace

Secret::~Secret() {
  if (!bytes_.empty()) ::explicit_bzero(bytes_.data(), bytes_.size());
}

void Secret::shrink(size_t size) {
  assert(size <= bytes_.size());
  if (size < bytes_.size()) ::explicit_bzero(bytes_.data() + size, bytes_.size() - size);
  bytes_.resize(size);
}

Result<SecretFile> parse_secret_object(std::string_view option, std::string_view text) {
  const std::vector<std::string> fields = split_at_commas(text);
  std::string_view type = fields.front();
  constexpr std::string_view kTypeKey = "qom-type=";
  if (type.starts_with(kTypeKey)) type.remove_prefix(kTypeKey.size());
  if (type != kType) {
    return fail(ErrorKind::kUnsupported,
                "{}: objects of type \"{}\" are not supported, only secret: connections are not "
                "encrypted",
                option, printable(type.substr(0, type.find('=')), 80));
  }
  SecretFile file;
  for (size_t i = 1; i < fields.size(); ++i) TRY(take_field(option, fields[i], file));
  if (file.id.empty() || file.path.empty()) {
    return fail(ErrorKind::kUsage, "{}: a secret needs both: secret,id=ID,file=FILE", option);
  }
  return file;
}

Result<SecretFile> find_secret(std::string_view option, std::string_view id,
                               std::span<const SecretFile> secrets) {
  for (const SecretFile& secret : secrets) {
    if (secret.id == id) return secret;
  }
  return fail(ErrorKind::kUsage,
              "{}: there is no secret \"{}\": say --object secret,id={},file=FILE", option,
              printable(id, 80), printable(id, 80));
}

Result<Secret> read_secret(const SecretFile& file) {
  const auto failed = [&](const char* what) {
    return in_file(fail_errno(errno, "secret \"{}\": cannot {}", printable(file.id, 80), what),
                   file.path);
  };
  const UniqueFd fd(::open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd.valid()) return failed("open");
  Secret secret(kMaxSecretBytes + 1);
  size_t size = 0;
  while (size < secret.size()) {
    const MutableByteSpan room = secret.bytes().subspan(size);
    const ssize_t got = ::read(fd.get(), room.data(), room.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed("read");
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > kMaxSecretBytes) {
    return in_file(fail(ErrorKind::kLimit, "secret \"{}\": has more than {} bytes",
                        printable(file.id, 80), kMaxSecretBytes),
                   file.path);
  }
  secret.shrink(size);
  if (file.base64) return decode_base64(secret, file);
  return secret;
}

}  // namespace underlay
