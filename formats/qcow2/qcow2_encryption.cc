#include "formats/qcow2/qcow2_encryption.h"

#include "formats/encryption/luks.h"

namespace underlay {
namespace {

constexpr uint64_t kCryptMethodAt = 32;

// The header extension "Full disk encryption header pointer": 0 8 offset | 8 8 length.
constexpr size_t kPointerBytes = 16;

Failure at_method(Failure failure) {
  failure.value().offset = kCryptMethodAt;
  return failure;
}

Result<void> check_method(const ImageOptions& options, uint32_t method) {
  if (method == Qcow2Header::kAes) {
    return at_method(
        fail(ErrorKind::kUnsupported,
             "crypt_method is 1 (AES): its passphrase cannot be checked, so a wrong one would give "
             "wrong data; convert it: qemu-img convert --object secret,id=sec0,file=PASSPHRASE "
             "--image-opts driver=qcow2,encrypt.key-secret=sec0,file.filename=IMAGE -O qcow2 NEW"));
  }
  if (method > Qcow2Header::kLuks) {
    return at_method(fail(ErrorKind::kUnsupported,
                          "crypt_method is {}: 0 (none) and 2 (LUKS) are served", method));
  }
  if (method == Qcow2Header::kNotEncrypted) {
    // As in QEMU, a secret that is not needed does not matter.
    if (options.encrypt_format.empty()) return {};
    return at_method(fail(ErrorKind::kUsage,
                          "is not encrypted (crypt_method is 0), but encrypt.format={} was given",
                          options.encrypt_format));
  }
  if (!options.encrypt_format.empty() && options.encrypt_format != "luks") {
    return at_method(fail(ErrorKind::kUsage,
                          "crypt_method is 2 (LUKS), but encrypt.format=\"{}\" was given",
                          printable(options.encrypt_format, 80)));
  }
  if (!options.key) {
    return at_method(
        fail(ErrorKind::kUsage,
             "is encrypted (crypt_method is 2, LUKS): say --object secret,id=sec0,file=PASSPHRASE "
             "--image-opts driver=qcow2,encrypt.key-secret=sec0,file.filename=IMAGE (of a backing "
             "file: backing.encrypt.key-secret=sec0)"));
  }
  return {};
}

}  // namespace

Result<FileRange> parse_qcow2_luks_pointer(const Qcow2Header& header, ByteSpan pointer) {
  if (pointer.size() != kPointerBytes) {
    return fail(ErrorKind::kMalformed,
                "crypt_method is 2 (LUKS), but the header extension that tells where the LUKS "
                "header lies has {} bytes, not {}",
                pointer.size(), kPointerBytes);
  }
  const FileRange range{.offset = load_be<uint64_t>(pointer, 0),
                        .length = load_be<uint64_t>(pointer, 8)};
  if (range.offset == 0 || !is_aligned(range.offset, header.cluster_size())) {
    return fail(ErrorKind::kMalformed,
                "the LUKS header's offset is {}: must be a multiple of {} (a cluster), not 0",
                range.offset, header.cluster_size());
  }
  if (range.length > kMaxLuksHeaderBytes) {
    return fail(ErrorKind::kLimit, "the LUKS header's length is {}: the limit is {}", range.length,
                kMaxLuksHeaderBytes);
  }
  return range;
}

Result<std::vector<std::byte>> read_qcow2_luks_header(const Source& file, const Qcow2Header& header,
                                                      ByteSpan pointer) {
  const FileRange range = TRY(parse_qcow2_luks_pointer(header, pointer));
  if (!range_within(range.offset, range.length, file.size())) {
    return fail(ErrorKind::kTruncated,
                "the LUKS header has {} bytes at {}: it ends beyond the end of the file, which has "
                "{} bytes; the file is truncated or damaged",
                range.length, range.offset, file.size());
  }
  std::vector<std::byte> bytes(static_cast<size_t>(range.length));
  TRY(file.read_at(range.offset, bytes));
  return bytes;
}

Result<bool> set_qcow2_option(ImageOptions& options, std::string_view key, std::string_view value) {
  if (key == "encrypt.key-secret") {
    options.key_secret = value;
    return true;
  }
  if (key != "encrypt.format") return false;
  if (value != "luks" && value != "aes") {
    return fail(ErrorKind::kUsage, "encrypt.format=\"{}\" is neither luks nor aes",
                printable(value, 80));
  }
  options.encrypt_format = value;
  return true;
}

Result<std::unique_ptr<const SectorCipher>> unlock_qcow2(const ImageToOpen& image,
                                                         const Qcow2Header& header,
                                                         const Qcow2Extensions& extensions) {
  TRY(check_method(image.options, header.crypt_method));
  if (header.crypt_method == Qcow2Header::kNotEncrypted) return nullptr;
  const auto container = TRY(read_qcow2_luks_header(*image.source, header, extensions.encryption));
  const Secret passphrase = TRY(read_secret(*image.options.key));
  auto cipher = unlock_luks(container, passphrase);
  if (!cipher && cipher.error().kind == ErrorKind::kDenied) {
    return fail(ErrorKind::kDenied, "{} (secret \"{}\", all bytes of {}): is it another one?",
                cipher.error().message, printable(image.options.key->id, 80),
                printable(image.options.key->path, 200));
  }
  return cipher;
}

}  // namespace underlay
