#include "formats/options/image_opts.h"

#include <array>
#include <iterator>
#include <map>

#include "formats/comma_list.h"
#include "formats/file_name.h"
#include "formats/format_table.h"
#include "formats/options/option_values.h"
#include "io/http/remote_name.h"

namespace underlay {
namespace {

Result<void> check_bool(std::string_view option, std::string_view value) {
  return check_one_of(option, value, {"on", "off", "yes", "no", "true", "false", "y", "n"});
}

// Keys without effect on a read-only server, of the image and, after "file.", of its file.
struct IdleKey {
  std::string_view name;
  bool of_file_only;
  Result<void> (*check)(std::string_view option, std::string_view value);
};
constexpr std::array kIdleKeys = {
    IdleKey{"aio", true, check_aio_mode},
    IdleKey{"auto-read-only", false, check_bool},
    IdleKey{"cache.direct", false, check_bool},
    IdleKey{"cache.no-flush", false, check_bool},
    IdleKey{"detect-zeroes", false, check_detect_zeroes_mode},
    IdleKey{"discard", false, check_discard_mode},
    IdleKey{"read-only", false, check_bool},
};

using Keys = std::map<std::string, std::string, std::less<>>;

// As in qemu, the last of several equal keys counts.
Result<Keys> split_keys(std::string_view text) {
  std::vector<std::string> fields = split_at_commas(text);
  if (fields.back().empty()) fields.pop_back();  // nothing at all, or nothing behind the last comma
  Keys keys;
  for (const std::string& field : fields) {
    const size_t equals = field.find('=');
    if (equals == std::string::npos || equals == 0) {
      return fail(ErrorKind::kUsage,
                  "--image-opts: \"{}\" is not KEY=VALUE (as in driver=qcow2,file.filename=FILE)",
                  printable(field, 80));
    }
    keys[field.substr(0, equals)] = field.substr(equals + 1);
  }
  return keys;
}

std::optional<std::string> take(Keys& keys, std::string_view name) {
  const auto found = keys.find(name);
  if (found == keys.end()) return std::nullopt;
  std::string value = std::move(found->second);
  keys.erase(found);
  return value;
}

// driver=file makes the file itself the disk: raw.
bool is_file_driver(std::string_view driver) { return driver == "file" || driver == "host_device"; }

// The same of what lies on a server: qemu's, and our own for S3.
bool is_server_driver(std::string_view driver) {
  return driver == "http" || driver == "https" || driver == "s3";
}

Result<std::string> take_format(Keys& keys, std::string_view key) {
  const auto driver = take(keys, key);
  if (!driver) return std::string();
  if (is_file_driver(*driver) || is_server_driver(*driver)) return std::string(kRawFormat);
  const Format* format = find_format(*driver);
  if (format == nullptr) {
    return fail(ErrorKind::kUnsupported, "--image-opts: {}=\"{}\" is not one of: {}", key,
                printable(*driver, 80), format_names());
  }
  return std::string(format->name);
}

// url=https://...; `prefix`: of its key, and of those that say how qemu's curl reads.
Result<std::string> take_url(Keys& keys, const std::string& driver, const std::string& prefix) {
  const auto url = take(keys, prefix + "url");
  if (!url || !url->starts_with(driver + "://")) {
    return fail(ErrorKind::kUsage, "--image-opts: driver {} needs {}url={}://...", driver, prefix,
                driver);
  }
  const std::string verify = take(keys, prefix + "sslverify").value_or("on");
  TRY(check_bool("--image-opts: " + prefix + "sslverify", verify));
  if (verify == "on" || verify == "yes" || verify == "true" || verify == "y") return *url;
  return fail(ErrorKind::kUnsupported,
              "--image-opts: {}sslverify={}: certificates are always verified; CURL_CA_BUNDLE=FILE "
              "in the environment names those of an authority of your own",
              prefix, verify);
}

// With a stated file driver the name is taken as it is, else it may have a protocol. `top`: the
// driver of the image, when that is one of files.
Result<std::string> take_path(Keys& keys, std::string_view top) {
  const auto driver = take(keys, "file.driver");
  if (driver && is_server_driver(*driver)) return take_url(keys, *driver, "file.");
  if (driver && !is_file_driver(*driver)) {
    return fail(ErrorKind::kUnsupported,
                "--image-opts: file.driver=\"{}\" is not supported: only file, host_device, http, "
                "https and s3 are",
                printable(*driver, 80));
  }
  if (is_server_driver(top)) return take_url(keys, std::string(top), "");
  const bool driver_is_file = is_file_driver(top);
  const auto path = take(keys, driver_is_file ? "filename" : "file.filename");
  if (!path || path->empty()) {
    return fail(ErrorKind::kUsage, "--image-opts: names no file: add file.filename=FILE");
  }
  // Whoever opens it goes by the name alone.
  if (driver || driver_is_file) return is_remote_name(*path) ? "./" + *path : *path;
  return plain_file_name(*path);
}

// Offers a key to the formats, without a driver to all of them. False when none has such a key.
Result<bool> set_format_option(OpenOptions& open, const std::string& key,
                               const std::string& value) {
  bool taken = false;
  std::string_view other;  // that has the key, unlike the driver
  for (const Format& format : formats()) {
    if (format.set_option == nullptr) continue;
    const bool meant = open.format.empty() || open.format == format.name;
    ImageOptions unused;
    if (!TRY(format.set_option(meant ? open.image : unused, key, value))) continue;
    taken = taken || meant;
    if (!meant) other = format.name;
  }
  if (!taken && !other.empty()) {
    return fail(ErrorKind::kUsage, "{} belongs to driver={}, not {}", key, other, open.format);
  }
  return taken;
}

// Of the backing file, only what its encryption needs.
Result<bool> set_backing_option(OpenOptions& open, std::string_view key, const std::string& value) {
  constexpr std::string_view kPrefix = "backing.";
  if (!key.starts_with("backing.encrypt.")) return false;
  OpenOptions backing;
  backing.format = open.backing_format;
  backing.image = open.backing;
  const bool taken =
      TRY(set_format_option(backing, std::string(key.substr(kPrefix.size())), value));
  open.backing = backing.image;
  return taken;
}

Result<void> take_format_options(Keys& keys, OpenOptions& open) {
  for (auto key = keys.begin(); key != keys.end();) {
    auto taken = set_backing_option(open, key->first, key->second);
    if (taken && !*taken) taken = set_format_option(open, key->first, key->second);
    if (!taken) return with_context(taken.error(), "--image-opts: ");
    key = *taken ? keys.erase(key) : std::next(key);
  }
  return {};
}

Result<void> take_secret(std::span<const SecretFile> secrets, ImageOptions& image) {
  if (image.key_secret.empty()) return {};
  image.key = TRY(find_secret("--image-opts: encrypt.key-secret", image.key_secret, secrets));
  return {};
}

// force-share=on, or locking=off: a program that writes to the file is no hindrance.
Result<void> take_sharing(Keys& keys, bool driver_is_file, FileSharing& sharing) {
  std::vector<std::string> locking = {"file.locking"};
  if (driver_is_file) locking.emplace_back("locking");
  for (const std::string& key : locking) {
    const std::string value = take(keys, key).value_or("auto");
    TRY(check_one_of("--image-opts: " + key, value, {"auto", "on", "off"}));
    if (value == "off") sharing = FileSharing::kAnyWriter;
  }
  for (const char* key : {"force-share", "file.force-share"}) {
    const std::string value = take(keys, key).value_or("off");
    TRY(check_bool(fmt::format("--image-opts: {}", key), value));
    const bool wanted = value == "on" || value == "yes" || value == "true" || value == "y";
    if (wanted) sharing = FileSharing::kAnyWriter;
  }
  return {};
}

Result<void> check_idle_keys(Keys& keys, bool driver_is_file) {
  for (const IdleKey& key : kIdleKeys) {
    const std::string of_file = fmt::format("file.{}", key.name);
    if (const auto value = take(keys, of_file)) {
      TRY(key.check(fmt::format("--image-opts: {}", of_file), *value));
    }
    if (key.of_file_only && !driver_is_file) continue;
    if (const auto value = take(keys, key.name)) {
      TRY(key.check(fmt::format("--image-opts: {}", key.name), *value));
    }
  }
  return {};
}

}  // namespace

Result<ImageOpts> parse_image_opts(std::string_view text, std::span<const SecretFile> secrets) {
  Keys keys = TRY(split_keys(text));
  const auto driver = keys.find("driver");
  const std::string top = driver != keys.end() ? driver->second : "";
  const bool driver_is_file = is_file_driver(top);
  ImageOpts opts;
  opts.open.format = TRY(take_format(keys, "driver"));
  opts.open.backing_format = TRY(take_format(keys, "backing.driver"));
  opts.path = TRY(take_path(keys, top));
  TRY(take_format_options(keys, opts.open));
  TRY(take_secret(secrets, opts.open.image));
  TRY(take_secret(secrets, opts.open.backing));
  TRY(take_sharing(keys, driver_is_file, opts.open.sharing));
  TRY(check_idle_keys(keys, driver_is_file));
  if (!keys.empty()) {
    return fail(ErrorKind::kUnsupported, "--image-opts: key \"{}\" is not supported",
                printable(keys.begin()->first, 80));
  }
  return opts;
}

}  // namespace underlay
