// GnuTLS's functions, as far as this program uses them. Linked as usual, it would lengthen the
// start of every server, most of which encrypt nothing.
#include "io/gnutls_on_demand.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "io/on_demand.h"

namespace {

const underlay::LibraryOnDemand& library() {
  static const underlay::LibraryOnDemand loaded("libgnutls.so.30");
  return loaded;
}

}  // namespace

bool underlay::load_gnutls() { return library().is_there(); }

gnutls_alert_description_t gnutls_alert_get(gnutls_session_t session) {
  return library().call<&gnutls_alert_get>("gnutls_alert_get", session);
}
const char* gnutls_alert_get_name(gnutls_alert_description_t alert) {
  return library().call<&gnutls_alert_get_name>("gnutls_alert_get_name", alert);
}
int gnutls_alert_send_appropriate(gnutls_session_t session, int err) {
  return library().call<&gnutls_alert_send_appropriate>("gnutls_alert_send_appropriate", session,
                                                        err);
}
int gnutls_bye(gnutls_session_t session, gnutls_close_request_t how) {
  return library().call<&gnutls_bye>("gnutls_bye", session, how);
}
int gnutls_certificate_allocate_credentials(gnutls_certificate_credentials_t* res) {
  return library().call<&gnutls_certificate_allocate_credentials>(
      "gnutls_certificate_allocate_credentials", res);
}
void gnutls_certificate_free_credentials(gnutls_certificate_credentials_t sc) {
  return library().call<&gnutls_certificate_free_credentials>("gnutls_certificate_free_credentials",
                                                              sc);
}
int gnutls_certificate_get_crt_raw(gnutls_certificate_credentials_t sc, unsigned idx1,
                                   unsigned idx2, gnutls_datum_t* cert) {
  return library().call<&gnutls_certificate_get_crt_raw>("gnutls_certificate_get_crt_raw", sc, idx1,
                                                         idx2, cert);
}
const gnutls_datum_t* gnutls_certificate_get_peers(gnutls_session_t session,
                                                   unsigned int* list_size) {
  return library().call<&gnutls_certificate_get_peers>("gnutls_certificate_get_peers", session,
                                                       list_size);
}
void gnutls_certificate_server_set_request(gnutls_session_t session,
                                           gnutls_certificate_request_t req) {
  return library().call<&gnutls_certificate_server_set_request>(
      "gnutls_certificate_server_set_request", session, req);
}
int gnutls_certificate_set_x509_crl_file(gnutls_certificate_credentials_t res, const char* crlfile,
                                         gnutls_x509_crt_fmt_t type) {
  return library().call<&gnutls_certificate_set_x509_crl_file>(
      "gnutls_certificate_set_x509_crl_file", res, crlfile, type);
}
int gnutls_certificate_set_x509_key_file2(gnutls_certificate_credentials_t res,
                                          const char* certfile, const char* keyfile,
                                          gnutls_x509_crt_fmt_t type, const char* pass,
                                          unsigned int flags) {
  return library().call<&gnutls_certificate_set_x509_key_file2>(
      "gnutls_certificate_set_x509_key_file2", res, certfile, keyfile, type, pass, flags);
}
int gnutls_certificate_set_x509_system_trust(gnutls_certificate_credentials_t cred) {
  return library().call<&gnutls_certificate_set_x509_system_trust>(
      "gnutls_certificate_set_x509_system_trust", cred);
}
int gnutls_certificate_set_x509_trust_file(gnutls_certificate_credentials_t cred,
                                           const char* cafile, gnutls_x509_crt_fmt_t type) {
  return library().call<&gnutls_certificate_set_x509_trust_file>(
      "gnutls_certificate_set_x509_trust_file", cred, cafile, type);
}
int gnutls_certificate_verification_status_print(unsigned int status,
                                                 gnutls_certificate_type_t type,
                                                 gnutls_datum_t* out, unsigned int flags) {
  return library().call<&gnutls_certificate_verification_status_print>(
      "gnutls_certificate_verification_status_print", status, type, out, flags);
}
int gnutls_credentials_set(gnutls_session_t session, gnutls_credentials_type_t type, void* cred) {
  return library().call<&gnutls_credentials_set>("gnutls_credentials_set", session, type, cred);
}
void gnutls_deinit(gnutls_session_t session) {
  return library().call<&gnutls_deinit>("gnutls_deinit", session);
}
int gnutls_error_is_fatal(int error) {
  return library().call<&gnutls_error_is_fatal>("gnutls_error_is_fatal", error);
}
int gnutls_hash_fast(gnutls_digest_algorithm_t algorithm, const void* text, size_t size,
                     void* digest) {
  return library().call<&gnutls_hash_fast>("gnutls_hash_fast", algorithm, text, size, digest);
}
int gnutls_handshake(gnutls_session_t session) {
  return library().call<&gnutls_handshake>("gnutls_handshake", session);
}
void gnutls_handshake_set_max_packet_length(gnutls_session_t session, size_t max) {
  return library().call<&gnutls_handshake_set_max_packet_length>(
      "gnutls_handshake_set_max_packet_length", session, max);
}
int gnutls_init(gnutls_session_t* session, unsigned int flags) {
  return library().call<&gnutls_init>("gnutls_init", session, flags);
}
void gnutls_priority_deinit(gnutls_priority_t priority_cache) {
  return library().call<&gnutls_priority_deinit>("gnutls_priority_deinit", priority_cache);
}
int gnutls_priority_init(gnutls_priority_t* priority_cache, const char* priorities,
                         const char** err_pos) {
  return library().call<&gnutls_priority_init>("gnutls_priority_init", priority_cache, priorities,
                                               err_pos);
}
int gnutls_priority_set(gnutls_session_t session, gnutls_priority_t priority) {
  return library().call<&gnutls_priority_set>("gnutls_priority_set", session, priority);
}
int gnutls_priority_set_direct(gnutls_session_t session, const char* priorities,
                               const char** err_pos) {
  return library().call<&gnutls_priority_set_direct>("gnutls_priority_set_direct", session,
                                                     priorities, err_pos);
}
int gnutls_psk_allocate_client_credentials(gnutls_psk_client_credentials_t* sc) {
  return library().call<&gnutls_psk_allocate_client_credentials>(
      "gnutls_psk_allocate_client_credentials", sc);
}
int gnutls_psk_allocate_server_credentials(gnutls_psk_server_credentials_t* sc) {
  return library().call<&gnutls_psk_allocate_server_credentials>(
      "gnutls_psk_allocate_server_credentials", sc);
}
void gnutls_psk_free_client_credentials(gnutls_psk_client_credentials_t sc) {
  return library().call<&gnutls_psk_free_client_credentials>("gnutls_psk_free_client_credentials",
                                                             sc);
}
void gnutls_psk_free_server_credentials(gnutls_psk_server_credentials_t sc) {
  return library().call<&gnutls_psk_free_server_credentials>("gnutls_psk_free_server_credentials",
                                                             sc);
}
int gnutls_psk_set_client_credentials(gnutls_psk_client_credentials_t res, const char* username,
                                      const gnutls_datum_t* key, gnutls_psk_key_flags flags) {
  return library().call<&gnutls_psk_set_client_credentials>("gnutls_psk_set_client_credentials",
                                                            res, username, key, flags);
}
void gnutls_psk_set_server_credentials_function(gnutls_psk_server_credentials_t cred,
                                                gnutls_psk_server_credentials_function* func) {
  return library().call<&gnutls_psk_set_server_credentials_function>(
      "gnutls_psk_set_server_credentials_function", cred, func);
}
size_t gnutls_record_check_pending(gnutls_session_t session) {
  return library().call<&gnutls_record_check_pending>("gnutls_record_check_pending", session);
}
int gnutls_record_get_direction(gnutls_session_t session) {
  return library().call<&gnutls_record_get_direction>("gnutls_record_get_direction", session);
}
int gnutls_record_get_state(gnutls_session_t session, unsigned read, gnutls_datum_t* mac_key,
                            gnutls_datum_t* IV, gnutls_datum_t* cipher_key,
                            unsigned char seq_number[8]) {
  return library().call<&gnutls_record_get_state>("gnutls_record_get_state", session, read, mac_key,
                                                  IV, cipher_key, seq_number);
}
ssize_t gnutls_record_recv(gnutls_session_t session, void* data, size_t data_size) {
  return library().call<&gnutls_record_recv>("gnutls_record_recv", session, data, data_size);
}
ssize_t gnutls_record_send(gnutls_session_t session, const void* data, size_t data_size) {
  return library().call<&gnutls_record_send>("gnutls_record_send", session, data, data_size);
}
int gnutls_server_name_set(gnutls_session_t session, gnutls_server_name_type_t type,
                           const void* name, size_t name_length) {
  return library().call<&gnutls_server_name_set>("gnutls_server_name_set", session, type, name,
                                                 name_length);
}
void* gnutls_session_get_ptr(gnutls_session_t session) {
  return library().call<&gnutls_session_get_ptr>("gnutls_session_get_ptr", session);
}
unsigned int gnutls_session_get_verify_cert_status(gnutls_session_t session) {
  return library().call<&gnutls_session_get_verify_cert_status>(
      "gnutls_session_get_verify_cert_status", session);
}
void gnutls_session_set_ptr(gnutls_session_t session, void* ptr) {
  return library().call<&gnutls_session_set_ptr>("gnutls_session_set_ptr", session, ptr);
}
void gnutls_session_set_verify_cert(gnutls_session_t session, const char* hostname,
                                    unsigned flags) {
  return library().call<&gnutls_session_set_verify_cert>("gnutls_session_set_verify_cert", session,
                                                         hostname, flags);
}
void gnutls_session_set_verify_cert2(gnutls_session_t session, gnutls_typed_vdata_st* data,
                                     unsigned elements, unsigned flags) {
  return library().call<&gnutls_session_set_verify_cert2>("gnutls_session_set_verify_cert2",
                                                          session, data, elements, flags);
}
const char* gnutls_strerror(int error) {
  return library().call<&gnutls_strerror>("gnutls_strerror", error);
}
void gnutls_transport_set_errno(gnutls_session_t session, int err) {
  return library().call<&gnutls_transport_set_errno>("gnutls_transport_set_errno", session, err);
}
void gnutls_transport_set_int2(gnutls_session_t session, int r, int s) {
  return library().call<&gnutls_transport_set_int2>("gnutls_transport_set_int2", session, r, s);
}
void gnutls_transport_set_ptr(gnutls_session_t session, gnutls_transport_ptr_t ptr) {
  return library().call<&gnutls_transport_set_ptr>("gnutls_transport_set_ptr", session, ptr);
}
void gnutls_transport_set_pull_function(gnutls_session_t session, gnutls_pull_func pull_func) {
  return library().call<&gnutls_transport_set_pull_function>("gnutls_transport_set_pull_function",
                                                             session, pull_func);
}
void gnutls_transport_set_pull_timeout_function(gnutls_session_t session,
                                                gnutls_pull_timeout_func func) {
  return library().call<&gnutls_transport_set_pull_timeout_function>(
      "gnutls_transport_set_pull_timeout_function", session, func);
}
void gnutls_transport_set_push_function(gnutls_session_t session, gnutls_push_func push_func) {
  return library().call<&gnutls_transport_set_push_function>("gnutls_transport_set_push_function",
                                                             session, push_func);
}
void gnutls_x509_crt_deinit(gnutls_x509_crt_t cert) {
  return library().call<&gnutls_x509_crt_deinit>("gnutls_x509_crt_deinit", cert);
}
time_t gnutls_x509_crt_get_activation_time(gnutls_x509_crt_t cert) {
  return library().call<&gnutls_x509_crt_get_activation_time>("gnutls_x509_crt_get_activation_time",
                                                              cert);
}
int gnutls_x509_crt_get_dn(gnutls_x509_crt_t cert, char* buf, size_t* buf_size) {
  return library().call<&gnutls_x509_crt_get_dn>("gnutls_x509_crt_get_dn", cert, buf, buf_size);
}
time_t gnutls_x509_crt_get_expiration_time(gnutls_x509_crt_t cert) {
  return library().call<&gnutls_x509_crt_get_expiration_time>("gnutls_x509_crt_get_expiration_time",
                                                              cert);
}
int gnutls_x509_crt_import(gnutls_x509_crt_t cert, const gnutls_datum_t* data,
                           gnutls_x509_crt_fmt_t format) {
  return library().call<&gnutls_x509_crt_import>("gnutls_x509_crt_import", cert, data, format);
}
int gnutls_x509_crt_init(gnutls_x509_crt_t* cert) {
  return library().call<&gnutls_x509_crt_init>("gnutls_x509_crt_init", cert);
}
