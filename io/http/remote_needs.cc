#include "io/http/remote_needs.h"

#include <algorithm>
#include <filesystem>

#include "io/environment.h"
#include "io/http/aws_files.h"
#include "io/http/http_target.h"
#include "io/http/http_url.h"
#include "io/http/remote_name.h"
#include "io/http/s3_store.h"

namespace underlay {
namespace {

namespace fs = std::filesystem;

// Ports of the proxies that libcurl would take.
void add_proxies(std::vector<uint16_t>& ports) {
  for (const char* name : {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"}) {
    const std::string proxy = environment(name);
    const CurlUrl url(curl_url());
    if (proxy.empty() ||
        curl_url_set(url.get(), CURLUPART_URL, proxy.c_str(), CURLU_GUESS_SCHEME) != CURLUE_OK) {
      continue;
    }
    constexpr uint16_t kOfProxies = 1080;  // libcurl's
    const bool stated = !url_part(url.get(), CURLUPART_PORT).empty();
    ports.push_back(stated ? url_port(url.get()) : kOfProxies);
  }
}

// Names of hosts are looked up again, and certificates read again, for every connection. A link out
// of /etc leads to a folder in which somebody replaces the file whenever the network changes; there
// all is readable. A file in /etc is what it is until the next start: its folder has secrets.
void add_system_files(std::vector<std::string>& files) {
  for (const char* file : {"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf",
                           "/etc/host.conf", "/etc/services", "/etc/ssl/certs"}) {
    std::error_code error;
    const fs::path place = fs::canonical(file, error);
    if (error) continue;
    files.emplace_back(file);
    if (fs::is_symlink(file, error) && place.parent_path().string().starts_with("/run/")) {
      files.push_back(place.parent_path().string());
    }
  }
}

template <class T>
void keep_one_of_each(std::vector<T>& all) {
  std::ranges::sort(all);
  all.erase(std::unique(all.begin(), all.end()), all.end());
}

// Keys are replaced by new files in ~/.aws, which has nothing else. Elsewhere a folder may hold
// what is none of a server's business.
void add_keys(const std::string& file, std::vector<std::string>& places) {
  std::error_code error;
  if (file.empty() || !fs::exists(file, error)) return;
  const fs::path path = fs::absolute(file, error);
  places.push_back((path.parent_path().filename() == ".aws" ? path.parent_path() : path).string());
}

void add_file(const std::string& file, std::vector<std::string>& places) {
  std::error_code error;
  if (!file.empty() && fs::exists(file, error))
    places.push_back(fs::absolute(file, error).string());
}

}  // namespace

Result<RemoteNeeds> needs_of(const std::vector<std::string>& names) {
  RemoteNeeds needs;
  // Those of servers that redirect, and of name servers whose answers are long.
  needs.ports = {53, 80, 443};
  bool store = false;
  for (const std::string& name : names) {
    store = store || is_s3_name(name);
    const std::string url = is_s3_name(name) ? TRY(s3_store()).endpoint : name;
    const CurlUrl parsed = TRY(parse_http_url(url, shown_name(url)));
    needs.ports.push_back(url_port(parsed.get()));
    add_file(ca_file_for(name), needs.readable);
  }
  add_proxies(needs.ports);
  add_system_files(needs.readable);
  if (store) {
    // Its command's process cannot be started in the sandbox.
    TRY(AwsCredentialSource::of_process());
    add_keys(aws_credentials_file(), needs.readable);
    add_keys(aws_config_file(), needs.readable);
  }
  keep_one_of_each(needs.readable);
  keep_one_of_each(needs.ports);
  return needs;
}

}  // namespace underlay
