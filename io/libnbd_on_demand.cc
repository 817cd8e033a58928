// libnbd's functions, as far as this program uses them. Linked as usual, libnbd would bring GnuTLS,
// libxml2 and ICU to the start of every command, most of which dial nobody: half of the time that a
// command takes from its start to its end.
#include <libnbd.h>

#include <cerrno>

#include "io/nbd_dial.h"
#include "io/on_demand.h"

namespace {

const underlay::LibraryOnDemand& library() {
  static const underlay::LibraryOnDemand loaded("libnbd.so.0");
  return loaded;
}

}  // namespace

bool underlay::load_libnbd() { return library().is_there(); }

// Callers make a handle first, and ask why they have none: these three need no library.
nbd_handle* nbd_create() {
  return !library().is_there() ? nullptr : library().call<&nbd_create>("nbd_create");
}
const char* nbd_get_error() {
  return !library().is_there() ? "libnbd.so.0 cannot be loaded: install the package libnbd0"
                               : library().call<&nbd_get_error>("nbd_get_error");
}
int nbd_get_errno() {
  return !library().is_there() ? ENOSYS : library().call<&nbd_get_errno>("nbd_get_errno");
}

int nbd_add_meta_context(nbd_handle* handle, const char* name) {
  return library().call<&nbd_add_meta_context>("nbd_add_meta_context", handle, name);
}
int64_t nbd_aio_block_status(nbd_handle* handle, uint64_t count, uint64_t offset,
                             nbd_extent_callback extent_callback,
                             nbd_completion_callback completion_callback, uint32_t flags) {
  return library().call<&nbd_aio_block_status>("nbd_aio_block_status", handle, count, offset,
                                               extent_callback, completion_callback, flags);
}
int nbd_aio_command_completed(nbd_handle* handle, uint64_t cookie) {
  return library().call<&nbd_aio_command_completed>("nbd_aio_command_completed", handle, cookie);
}
int nbd_aio_connect_socket(nbd_handle* handle, int sock) {
  return library().call<&nbd_aio_connect_socket>("nbd_aio_connect_socket", handle, sock);
}
int nbd_aio_connect_tcp(nbd_handle* handle, const char* hostname, const char* port) {
  return library().call<&nbd_aio_connect_tcp>("nbd_aio_connect_tcp", handle, hostname, port);
}
int nbd_aio_connect_unix(nbd_handle* handle, const char* unixsocket) {
  return library().call<&nbd_aio_connect_unix>("nbd_aio_connect_unix", handle, unixsocket);
}
int nbd_aio_connect_uri(nbd_handle* handle, const char* uri) {
  return library().call<&nbd_aio_connect_uri>("nbd_aio_connect_uri", handle, uri);
}
int nbd_aio_disconnect(nbd_handle* handle, uint32_t flags) {
  return library().call<&nbd_aio_disconnect>("nbd_aio_disconnect", handle, flags);
}
unsigned nbd_aio_get_direction(nbd_handle* handle) {
  return library().call<&nbd_aio_get_direction>("nbd_aio_get_direction", handle);
}
int nbd_aio_get_fd(nbd_handle* handle) {
  return library().call<&nbd_aio_get_fd>("nbd_aio_get_fd", handle);
}
int nbd_aio_is_closed(nbd_handle* handle) {
  return library().call<&nbd_aio_is_closed>("nbd_aio_is_closed", handle);
}
int nbd_aio_is_connecting(nbd_handle* handle) {
  return library().call<&nbd_aio_is_connecting>("nbd_aio_is_connecting", handle);
}
int nbd_aio_is_dead(nbd_handle* handle) {
  return library().call<&nbd_aio_is_dead>("nbd_aio_is_dead", handle);
}
int nbd_aio_is_negotiating(nbd_handle* handle) {
  return library().call<&nbd_aio_is_negotiating>("nbd_aio_is_negotiating", handle);
}
int nbd_aio_is_ready(nbd_handle* handle) {
  return library().call<&nbd_aio_is_ready>("nbd_aio_is_ready", handle);
}
int nbd_aio_notify_read(nbd_handle* handle) {
  return library().call<&nbd_aio_notify_read>("nbd_aio_notify_read", handle);
}
int nbd_aio_notify_write(nbd_handle* handle) {
  return library().call<&nbd_aio_notify_write>("nbd_aio_notify_write", handle);
}
int nbd_aio_opt_abort(nbd_handle* handle) {
  return library().call<&nbd_aio_opt_abort>("nbd_aio_opt_abort", handle);
}
int nbd_aio_opt_info(nbd_handle* handle, nbd_completion_callback completion_callback) {
  return library().call<&nbd_aio_opt_info>("nbd_aio_opt_info", handle, completion_callback);
}
int nbd_aio_opt_list(nbd_handle* handle, nbd_list_callback list_callback,
                     nbd_completion_callback completion_callback) {
  return library().call<&nbd_aio_opt_list>("nbd_aio_opt_list", handle, list_callback,
                                           completion_callback);
}
int nbd_aio_opt_list_meta_context(nbd_handle* handle, nbd_context_callback context_callback,
                                  nbd_completion_callback completion_callback) {
  return library().call<&nbd_aio_opt_list_meta_context>("nbd_aio_opt_list_meta_context", handle,
                                                        context_callback, completion_callback);
}
int64_t nbd_aio_pread(nbd_handle* handle, void* buf, size_t count, uint64_t offset,
                      nbd_completion_callback completion_callback, uint32_t flags) {
  return library().call<&nbd_aio_pread>("nbd_aio_pread", handle, buf, count, offset,
                                        completion_callback, flags);
}
int nbd_can_cache(nbd_handle* handle) {
  return library().call<&nbd_can_cache>("nbd_can_cache", handle);
}
int nbd_can_df(nbd_handle* handle) { return library().call<&nbd_can_df>("nbd_can_df", handle); }
int nbd_can_fast_zero(nbd_handle* handle) {
  return library().call<&nbd_can_fast_zero>("nbd_can_fast_zero", handle);
}
int nbd_can_flush(nbd_handle* handle) {
  return library().call<&nbd_can_flush>("nbd_can_flush", handle);
}
int nbd_can_fua(nbd_handle* handle) { return library().call<&nbd_can_fua>("nbd_can_fua", handle); }
int nbd_can_meta_context(nbd_handle* handle, const char* metacontext) {
  return library().call<&nbd_can_meta_context>("nbd_can_meta_context", handle, metacontext);
}
int nbd_can_multi_conn(nbd_handle* handle) {
  return library().call<&nbd_can_multi_conn>("nbd_can_multi_conn", handle);
}
int nbd_can_trim(nbd_handle* handle) {
  return library().call<&nbd_can_trim>("nbd_can_trim", handle);
}
int nbd_can_zero(nbd_handle* handle) {
  return library().call<&nbd_can_zero>("nbd_can_zero", handle);
}
void nbd_close(nbd_handle* handle) { return library().call<&nbd_close>("nbd_close", handle); }
int64_t nbd_get_block_size(nbd_handle* handle, int size_type) {
  return library().call<&nbd_get_block_size>("nbd_get_block_size", handle, size_type);
}
int64_t nbd_get_size(nbd_handle* handle) {
  return library().call<&nbd_get_size>("nbd_get_size", handle);
}
int nbd_get_structured_replies_negotiated(nbd_handle* handle) {
  return library().call<&nbd_get_structured_replies_negotiated>(
      "nbd_get_structured_replies_negotiated", handle);
}
int nbd_is_read_only(nbd_handle* handle) {
  return library().call<&nbd_is_read_only>("nbd_is_read_only", handle);
}
int nbd_is_rotational(nbd_handle* handle) {
  return library().call<&nbd_is_rotational>("nbd_is_rotational", handle);
}
int nbd_poll(nbd_handle* handle, int timeout) {
  return library().call<&nbd_poll>("nbd_poll", handle, timeout);
}
int nbd_set_export_name(nbd_handle* handle, const char* export_name) {
  return library().call<&nbd_set_export_name>("nbd_set_export_name", handle, export_name);
}
int nbd_set_opt_mode(nbd_handle* handle, bool enable) {
  return library().call<&nbd_set_opt_mode>("nbd_set_opt_mode", handle, enable);
}
int nbd_set_request_structured_replies(nbd_handle* handle, bool request) {
  return library().call<&nbd_set_request_structured_replies>("nbd_set_request_structured_replies",
                                                             handle, request);
}
int nbd_set_tls(nbd_handle* handle, int tls) {
  return library().call<&nbd_set_tls>("nbd_set_tls", handle, tls);
}
int nbd_set_tls_certificates(nbd_handle* handle, const char* dir) {
  return library().call<&nbd_set_tls_certificates>("nbd_set_tls_certificates", handle, dir);
}
int nbd_set_tls_psk_file(nbd_handle* handle, const char* filename) {
  return library().call<&nbd_set_tls_psk_file>("nbd_set_tls_psk_file", handle, filename);
}
int nbd_set_tls_username(nbd_handle* handle, const char* username) {
  return library().call<&nbd_set_tls_username>("nbd_set_tls_username", handle, username);
}
int nbd_set_tls_verify_peer(nbd_handle* handle, bool verify) {
  return library().call<&nbd_set_tls_verify_peer>("nbd_set_tls_verify_peer", handle, verify);
}
int nbd_set_uri_allow_local_file(nbd_handle* handle, bool allow) {
  return library().call<&nbd_set_uri_allow_local_file>("nbd_set_uri_allow_local_file", handle,
                                                       allow);
}
int nbd_set_uri_allow_tls(nbd_handle* handle, int tls) {
  return library().call<&nbd_set_uri_allow_tls>("nbd_set_uri_allow_tls", handle, tls);
}
int nbd_set_uri_allow_transports(nbd_handle* handle, uint32_t mask) {
  return library().call<&nbd_set_uri_allow_transports>("nbd_set_uri_allow_transports", handle,
                                                       mask);
}
