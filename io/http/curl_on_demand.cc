// libcurl's functions, as far as this program uses them. Linked as usual, libcurl would bring
// GnuTLS, Kerberos, LDAP and SSH to the start of every command, most of which open local files.
#include "io/http/curl_handle.h"
#include "io/on_demand.h"

namespace {

const underlay::LibraryOnDemand& library() {
  static const underlay::LibraryOnDemand loaded("libcurl-gnutls.so.4");
  return loaded;
}

}  // namespace

underlay::Result<void> underlay::load_curl() {
  if (!library().is_there()) {
    return fail(ErrorKind::kUnsupported,
                "libcurl-gnutls.so.4 cannot be loaded: install the package libcurl3-gnutls");
  }
  static const CURLcode prepared =
      library().call<&curl_global_init>("curl_global_init", CURL_GLOBAL_DEFAULT);
  if (prepared != CURLE_OK) return fail(ErrorKind::kUnsupported, "libcurl cannot be prepared");
  return {};
}

const underlay::CurlOptions& underlay::curl_options() {
  static const CurlOptions options{
      .set = library().function<&curl_easy_setopt>("curl_easy_setopt"),
      .get = library().function<&curl_easy_getinfo>("curl_easy_getinfo"),
      .set_multi = library().function<&curl_multi_setopt>("curl_multi_setopt")};
  return options;
}

void curl_easy_cleanup(CURL* handle) {
  library().call<&curl_easy_cleanup>("curl_easy_cleanup", handle);
}
CURLHcode curl_easy_header(CURL* handle, const char* name, size_t index, unsigned int origin,
                           int request, curl_header** header) {
  return library().call<&curl_easy_header>("curl_easy_header", handle, name, index, origin, request,
                                           header);
}
CURL* curl_easy_init() { return library().call<&curl_easy_init>("curl_easy_init"); }
CURLcode curl_easy_pause(CURL* handle, int what) {
  return library().call<&curl_easy_pause>("curl_easy_pause", handle, what);
}
void curl_easy_reset(CURL* handle) { library().call<&curl_easy_reset>("curl_easy_reset", handle); }
const char* curl_easy_strerror(CURLcode code) {
  return library().call<&curl_easy_strerror>("curl_easy_strerror", code);
}
void curl_free(void* memory) { library().call<&curl_free>("curl_free", memory); }
time_t curl_getdate(const char* text, const time_t* unused) {
  return library().call<&curl_getdate>("curl_getdate", text, unused);
}
CURLMcode curl_multi_add_handle(CURLM* multi, CURL* easy) {
  return library().call<&curl_multi_add_handle>("curl_multi_add_handle", multi, easy);
}
CURLMcode curl_multi_cleanup(CURLM* multi) {
  return library().call<&curl_multi_cleanup>("curl_multi_cleanup", multi);
}
CURLMsg* curl_multi_info_read(CURLM* multi, int* left) {
  return library().call<&curl_multi_info_read>("curl_multi_info_read", multi, left);
}
CURLM* curl_multi_init() { return library().call<&curl_multi_init>("curl_multi_init"); }
CURLMcode curl_multi_perform(CURLM* multi, int* running) {
  return library().call<&curl_multi_perform>("curl_multi_perform", multi, running);
}
CURLMcode curl_multi_poll(CURLM* multi, curl_waitfd extra[], unsigned int count, int timeout_ms,
                          int* ready) {
  return library().call<&curl_multi_poll>("curl_multi_poll", multi, extra, count, timeout_ms,
                                          ready);
}
CURLMcode curl_multi_remove_handle(CURLM* multi, CURL* easy) {
  return library().call<&curl_multi_remove_handle>("curl_multi_remove_handle", multi, easy);
}
const char* curl_multi_strerror(CURLMcode code) {
  return library().call<&curl_multi_strerror>("curl_multi_strerror", code);
}
curl_slist* curl_slist_append(curl_slist* list, const char* text) {
  return library().call<&curl_slist_append>("curl_slist_append", list, text);
}
void curl_slist_free_all(curl_slist* list) {
  library().call<&curl_slist_free_all>("curl_slist_free_all", list);
}
CURLU* curl_url() { return library().call<&curl_url>("curl_url"); }
void curl_url_cleanup(CURLU* url) { library().call<&curl_url_cleanup>("curl_url_cleanup", url); }
CURLUcode curl_url_get(CURLU* url, CURLUPart part, char** text, unsigned int flags) {
  return library().call<&curl_url_get>("curl_url_get", url, part, text, flags);
}
CURLUcode curl_url_set(CURLU* url, CURLUPart part, const char* text, unsigned int flags) {
  return library().call<&curl_url_set>("curl_url_set", url, part, text, flags);
}
const char* curl_url_strerror(CURLUcode code) {
  return library().call<&curl_url_strerror>("curl_url_strerror", code);
}
