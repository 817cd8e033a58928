// libcurl, which speaks HTTP for us, with handles that release themselves. It is loaded when the
// first image on a web server is opened (curl_on_demand.cc).
#pragma once

#include <curl/curl.h>

#include <memory>

#include "io/error.h"

namespace underlay {

// Loads and prepares libcurl, once. kUnsupported, with what to install, when there is none. No
// other function of libcurl may be called before. Thread-safe.
Result<void> load_curl();

// Those that take values of any type: they cannot be handed on as the others are.
struct CurlOptions {
  CURLcode (*set)(CURL*, CURLoption, ...);
  CURLcode (*get)(CURL*, CURLINFO, ...);
  CURLMcode (*set_multi)(CURLM*, CURLMoption, ...);
};
const CurlOptions& curl_options();

struct ReleaseCurlEasy {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
struct ReleaseCurlMulti {
  void operator()(CURLM* handle) const { curl_multi_cleanup(handle); }
};
struct ReleaseCurlUrl {
  void operator()(CURLU* handle) const { curl_url_cleanup(handle); }
};
struct ReleaseCurlList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
struct ReleaseCurlText {
  void operator()(char* text) const { curl_free(text); }
};
using CurlEasy = std::unique_ptr<CURL, ReleaseCurlEasy>;
using CurlMulti = std::unique_ptr<CURLM, ReleaseCurlMulti>;
using CurlUrl = std::unique_ptr<CURLU, ReleaseCurlUrl>;
using CurlList = std::unique_ptr<curl_slist, ReleaseCurlList>;
using CurlText = std::unique_ptr<char, ReleaseCurlText>;

}  // namespace underlay
