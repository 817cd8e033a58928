#include "server/cage_plan.h"

#include <algorithm>
#include <filesystem>

#include "io/http/remote_name.h"
#include "io/http/remote_needs.h"
#include "io/nbd_source.h"

namespace underlay {
namespace {

namespace fs = std::filesystem;

// The folder that exists: behind a file there may be a member's name (disks.ova#one/two.vmdk).
fs::path folder_of(fs::path path) {
  std::error_code error;
  do {
    path = path.parent_path();
  } while (!fs::is_directory(path, error) && path.has_relative_path());
  return path;
}

class Folders {
 public:
  void add(const fs::path& folder) {
    if (is_remote_name(folder.string())) return;
    std::error_code error;
    const std::string found = fs::canonical(folder, error).string();
    // What does not exist is told by whoever needs it.
    if (!error && std::ranges::find(all_, found) == all_.end()) all_.push_back(found);
  }
  // Where the name stands, and where it leads.
  void add_folder_of(const std::string& file) {
    if (file.empty() || is_remote_name(file) || names_nbd_export(file)) return;
    std::error_code error;
    const fs::path path = fs::absolute(file, error);
    add(folder_of(path));
    add(folder_of(fs::weakly_canonical(path, error)));
  }
  std::vector<std::string> take() { return std::move(all_); }

 private:
  std::vector<std::string> all_;
};

// What a reload reads again, and where further images may be.
void add_of_live_server(const Options& options, Folders& folders) {
  for (const std::string& folder : options.allow_paths) folders.add(folder);
  for (const ExportOption& exported : options.exports) folders.add_folder_of(exported.path);
  for (const ParentPath& parent : options.parents) folders.add_folder_of(parent.path);
  if (options.config.empty()) return;
  folders.add_folder_of(options.config);
  for (const SecretFile& secret : options.secrets) folders.add_folder_of(secret.path);
  if (options.tls_creds) folders.add(options.tls_creds->folder);
  if (options.tls_authz) folders.add_folder_of(options.tls_authz->list_file);
}

// Images and folders on servers.
std::vector<std::string> remote_names(const Options& options) {
  std::vector<std::string> names = options.allow_paths;
  for (const ExportOption& exported : options.exports) names.push_back(exported.path);
  for (const ParentPath& parent : options.parents) names.push_back(parent.path);
  std::erase_if(names, [](const std::string& name) { return !is_remote_name(name); });
  return names;
}

}  // namespace

bool is_live(const Options& options) { return !options.control.empty() || !options.config.empty(); }

CagePlan cage_plan(const Options& options) {
  CagePlan plan;
  plan.kernel_device = !options.device.empty();
  Folders folders;
  if (!options.directory.empty()) {
    folders.add(options.directory);
    for (const std::string& folder : options.allow_paths) folders.add(folder);
  }
  if (is_live(options)) add_of_live_server(options, folders);
  plan.folders = folders.take();
  if (!options.cache_dir.empty()) {
    Folders written;
    written.add(options.cache_dir);
    plan.written = written.take();
  }
  if (const auto names = remote_names(options); !names.empty()) {
    // What is no URL is told by whoever opens it.
    if (auto needs = needs_of(names)) {
      plan.system_files = std::move(needs->readable);
      plan.ports = std::move(needs->ports);
    }
  }
  for (const std::string& file :
       {options.socket_path, options.pid_file, options.handover, options.control}) {
    if (!file.empty()) plan.removed.push_back(file);
  }
  if (options.metrics.starts_with('/')) plan.removed.push_back(options.metrics);
  return plan;
}

}  // namespace underlay
