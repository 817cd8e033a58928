#include "formats/encryption/crypto_on_demand.h"

#include <libcryptsetup.h>
#include <openssl/evp.h>

#include "io/on_demand.h"

namespace {

const underlay::LibraryOnDemand& libcryptsetup() {
  static const underlay::LibraryOnDemand loaded("libcryptsetup.so.12");
  return loaded;
}
const underlay::LibraryOnDemand& libcrypto() {
  static const underlay::LibraryOnDemand loaded("libcrypto.so.3");
  return loaded;
}

}  // namespace

namespace underlay {

Result<void> load_crypto_libraries() {
  if (!libcryptsetup().is_there()) {
    return fail(ErrorKind::kUnsupported,
                "libcryptsetup.so.12 cannot be loaded: install the package libcryptsetup12");
  }
  return load_libcrypto();
}

Result<void> load_libcrypto() {
  if (!libcrypto().is_there()) {
    return fail(ErrorKind::kUnsupported,
                "libcrypto.so.3 cannot be loaded: install the package libssl3");
  }
  return {};
}

}  // namespace underlay

int crypt_init(crypt_device** cd, const char* device) {
  return libcryptsetup().call<&crypt_init>("crypt_init", cd, device);
}
void crypt_free(crypt_device* cd) { return libcryptsetup().call<&crypt_free>("crypt_free", cd); }
int crypt_load(crypt_device* cd, const char* requested_type, void* params) {
  return libcryptsetup().call<&crypt_load>("crypt_load", cd, requested_type, params);
}
void crypt_set_log_callback(crypt_device* cd, void (*log)(int level, const char* msg, void* usrptr),
                            void* usrptr) {
  return libcryptsetup().call<&crypt_set_log_callback>("crypt_set_log_callback", cd, log, usrptr);
}
int crypt_get_volume_key_size(crypt_device* cd) {
  return libcryptsetup().call<&crypt_get_volume_key_size>("crypt_get_volume_key_size", cd);
}
int crypt_volume_key_get(crypt_device* cd, int keyslot, char* volume_key, size_t* volume_key_size,
                         const char* passphrase, size_t passphrase_size) {
  return libcryptsetup().call<&crypt_volume_key_get>("crypt_volume_key_get", cd, keyslot,
                                                     volume_key, volume_key_size, passphrase,
                                                     passphrase_size);
}

EVP_CIPHER_CTX* EVP_CIPHER_CTX_new() {
  return libcrypto().call<&EVP_CIPHER_CTX_new>("EVP_CIPHER_CTX_new");
}
void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX* context) {
  return libcrypto().call<&EVP_CIPHER_CTX_free>("EVP_CIPHER_CTX_free", context);
}
int EVP_CIPHER_CTX_copy(EVP_CIPHER_CTX* out, const EVP_CIPHER_CTX* in) {
  return libcrypto().call<&EVP_CIPHER_CTX_copy>("EVP_CIPHER_CTX_copy", out, in);
}
int EVP_CIPHER_CTX_set_padding(EVP_CIPHER_CTX* context, int pad) {
  return libcrypto().call<&EVP_CIPHER_CTX_set_padding>("EVP_CIPHER_CTX_set_padding", context, pad);
}
EVP_CIPHER* EVP_CIPHER_fetch(OSSL_LIB_CTX* library, const char* algorithm, const char* properties) {
  return libcrypto().call<&EVP_CIPHER_fetch>("EVP_CIPHER_fetch", library, algorithm, properties);
}
void EVP_CIPHER_free(EVP_CIPHER* cipher) {
  return libcrypto().call<&EVP_CIPHER_free>("EVP_CIPHER_free", cipher);
}
int EVP_DecryptInit_ex2(EVP_CIPHER_CTX* context, const EVP_CIPHER* cipher, const unsigned char* key,
                        const unsigned char* iv, const OSSL_PARAM* params) {
  return libcrypto().call<&EVP_DecryptInit_ex2>("EVP_DecryptInit_ex2", context, cipher, key, iv,
                                                params);
}
int EVP_DecryptUpdate(EVP_CIPHER_CTX* context, unsigned char* out, int* out_length,
                      const unsigned char* in, int in_length) {
  return libcrypto().call<&EVP_DecryptUpdate>("EVP_DecryptUpdate", context, out, out_length, in,
                                              in_length);
}
EVP_ENCODE_CTX* EVP_ENCODE_CTX_new() {
  return libcrypto().call<&EVP_ENCODE_CTX_new>("EVP_ENCODE_CTX_new");
}
void EVP_ENCODE_CTX_free(EVP_ENCODE_CTX* context) {
  return libcrypto().call<&EVP_ENCODE_CTX_free>("EVP_ENCODE_CTX_free", context);
}
void EVP_DecodeInit(EVP_ENCODE_CTX* context) {
  return libcrypto().call<&EVP_DecodeInit>("EVP_DecodeInit", context);
}
int EVP_DecodeUpdate(EVP_ENCODE_CTX* context, unsigned char* out, int* out_length,
                     const unsigned char* in, int in_length) {
  return libcrypto().call<&EVP_DecodeUpdate>("EVP_DecodeUpdate", context, out, out_length, in,
                                             in_length);
}
int EVP_DecodeFinal(EVP_ENCODE_CTX* context, unsigned char* out, int* out_length) {
  return libcrypto().call<&EVP_DecodeFinal>("EVP_DecodeFinal", context, out, out_length);
}
EVP_MD* EVP_MD_fetch(OSSL_LIB_CTX* library, const char* algorithm, const char* properties) {
  return libcrypto().call<&EVP_MD_fetch>("EVP_MD_fetch", library, algorithm, properties);
}
void EVP_MD_free(EVP_MD* digest) { return libcrypto().call<&EVP_MD_free>("EVP_MD_free", digest); }
EVP_MD_CTX* EVP_MD_CTX_new() { return libcrypto().call<&EVP_MD_CTX_new>("EVP_MD_CTX_new"); }
void EVP_MD_CTX_free(EVP_MD_CTX* context) {
  return libcrypto().call<&EVP_MD_CTX_free>("EVP_MD_CTX_free", context);
}
int EVP_DigestInit_ex2(EVP_MD_CTX* context, const EVP_MD* digest, const OSSL_PARAM* params) {
  return libcrypto().call<&EVP_DigestInit_ex2>("EVP_DigestInit_ex2", context, digest, params);
}
int EVP_DigestUpdate(EVP_MD_CTX* context, const void* data, size_t size) {
  return libcrypto().call<&EVP_DigestUpdate>("EVP_DigestUpdate", context, data, size);
}
int EVP_DigestFinal_ex(EVP_MD_CTX* context, unsigned char* out, unsigned int* size) {
  return libcrypto().call<&EVP_DigestFinal_ex>("EVP_DigestFinal_ex", context, out, size);
}
