#include "tools/img/luks_size.h"

#include <algorithm>
#include <array>

#include "formats/options/option_values.h"
#include "io/bytes.h"
#include "tools/img/creation_options.h"

namespace underlay::img {
namespace {

using Type = CreationKey::Type;

// LUKS1 On-Disk Format Specification 1.2.3: eight key slots, each with the key split into 4000
// stripes, in areas that begin at multiples of 4096 bytes, behind the header.
constexpr uint64_t kSlots = 8;
constexpr uint64_t kStripes = 4000;
constexpr uint64_t kAlignment = 4096;

struct Cipher {
  std::string_view name;
  uint64_t key_bytes = 0;
};
constexpr std::array kCiphers{
    Cipher{"aes-128", 16},     Cipher{"aes-192", 24},     Cipher{"aes-256", 32},
    Cipher{"cast5-128", 16},   Cipher{"serpent-128", 16}, Cipher{"serpent-192", 24},
    Cipher{"serpent-256", 32}, Cipher{"twofish-128", 16}, Cipher{"twofish-192", 24},
    Cipher{"twofish-256", 32},
};

}  // namespace

Result<uint64_t> luks_header_bytes(std::string_view cipher, std::string_view mode) {
  const auto known = std::ranges::find(kCiphers, cipher, &Cipher::name);
  if (known == kCiphers.end()) {
    return fail(ErrorKind::kUsage, "cipher-alg: \"{}\" is not known: aes-256, say",
                printable(cipher, 80));
  }
  TRY(check_one_of("cipher-mode", mode, {"ecb", "cbc", "xts", "ctr"}));
  const uint64_t key = known->key_bytes * (mode == "xts" ? 2 : 1);  // XTS takes two keys
  return kAlignment + kSlots * round_up(key * kStripes, kAlignment).value();
}

Result<ImageSize> luks_size(const std::vector<std::string>& given, const DiskToStore& disk) {
  constexpr std::array kKeys{CreationKey{"size", Type::kSize},
                             CreationKey{"preallocation"},
                             CreationKey{"key-secret"},
                             CreationKey{"cipher-alg"},
                             CreationKey{"cipher-mode"},
                             CreationKey{"ivgen-alg"},
                             CreationKey{"ivgen-hash-alg"},
                             CreationKey{"hash-alg"},
                             CreationKey{"iter-time", Type::kNumber}};
  const CreationOptions options = TRY(CreationOptions::parse(given, "luks", kKeys));
  TRY(check_one_of("-o preallocation", options.text("preallocation", "off"),
                   {"off", "metadata", "falloc", "full"}));
  const uint64_t header = TRY(luks_header_bytes(options.text("cipher-alg", kUsualLuksCipher),
                                                options.text("cipher-mode", kUsualLuksMode)));
  uint64_t whole;
  if (__builtin_add_overflow(header, disk.size, &whole)) {
    return fail(ErrorKind::kUsage, "a disk of {} bytes is too large for the format", disk.size);
  }
  // Zeros are encrypted as all else.
  return ImageSize{.required = whole, .fully_allocated = whole};
}

}  // namespace underlay::img
