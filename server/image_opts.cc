#include "server/image_opts.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <map>
#include <span>

#include "formats/comma_list.h"
#include "formats/file_name.h"
#include "formats/format_table.h"

namespace underlay {
namespace {

Result<void> one_of(std::string_view option, std::string_view value,
                    std::initializer_list<std::string_view> known) {
  if (std::find(known.begin(), known.end(), value) != known.end()) return {};
  return fail(ErrorKind::kUsage, "{}: \"{}\" is not one of: {}", option, printable(value, 80),
              fmt::join(known, ", "));
}

Result<void> check_bool(std::string_view option, std::string_view value) {
  return one_of(option, value, {"on", "off", "yes", "no", "true", "false", "y", "n"});
}

Result<void> check_locking(std::string_view option, std::string_view value) {
  return one_of(option, value, {"auto", "on", "off"});
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
    IdleKey{"force-share", false, check_bool},
    IdleKey{"locking", true, check_locking},
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

Result<std::string> take_format(Keys& keys, std::string_view key) {
  const auto driver = take(keys, key);
  if (!driver) return std::string();
  if (is_file_driver(*driver)) return std::string("raw");
  const Format* format = find_format(*driver);
  if (format == nullptr) {
    return fail(ErrorKind::kUnsupported, "--image-opts: {}=\"{}\" is not one of: {}", key,
                printable(*driver, 80), format_names());
  }
  return std::string(format->name);
}

// With a stated file driver the name is taken as it is, else it may have a protocol.
Result<std::string> take_path(Keys& keys, bool driver_is_file) {
  const auto driver = take(keys, "file.driver");
  if (driver && !is_file_driver(*driver)) {
    return fail(ErrorKind::kUnsupported,
                "--image-opts: file.driver=\"{}\" is not supported: only file and host_device are",
                printable(*driver, 80));
  }
  const auto path = take(keys, driver_is_file ? "filename" : "file.filename");
  if (!path || path->empty()) {
    return fail(ErrorKind::kUsage, "--image-opts: names no file: add file.filename=FILE");
  }
  if (driver || driver_is_file) return *path;
  return plain_file_name(*path);
}

Result<ImageOptions::VhdSize> take_vhd_size(Keys& keys) {
  const auto value = take(keys, "force_size_calc");
  if (!value || *value == "auto") return ImageOptions::VhdSize::kByCreator;
  TRY(one_of("--image-opts: force_size_calc", *value, {"auto", "chs", "current_size"}));
  return *value == "chs" ? ImageOptions::VhdSize::kChs : ImageOptions::VhdSize::kCurrentSize;
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

Result<ImageOpts> parse_image_opts(std::string_view text) {
  Keys keys = TRY(split_keys(text));
  const auto driver = keys.find("driver");
  const bool driver_is_file = driver != keys.end() && is_file_driver(driver->second);
  ImageOpts opts;
  opts.open.format = TRY(take_format(keys, "driver"));
  opts.open.backing_format = TRY(take_format(keys, "backing.driver"));
  opts.path = TRY(take_path(keys, driver_is_file));
  if (keys.contains("force_size_calc") && !opts.open.format.empty() && opts.open.format != "vpc") {
    return fail(ErrorKind::kUsage, "--image-opts: force_size_calc belongs to driver=vpc, not {}",
                opts.open.format);
  }
  opts.open.image.vhd_size = TRY(take_vhd_size(keys));
  TRY(check_idle_keys(keys, driver_is_file));
  if (!keys.empty()) {
    return fail(ErrorKind::kUnsupported, "--image-opts: key \"{}\" is not supported",
                printable(keys.begin()->first, 80));
  }
  return opts;
}

Result<std::string> plain_file_name(std::string_view name) {
  constexpr std::string_view kFile = "file:";
  const bool stated = name.starts_with(kFile);
  if (stated) name.remove_prefix(kFile.size());
  if (name.empty()) return fail(ErrorKind::kUsage, "the image's file name is empty");
  if (stated) return std::string(name);
  if (name.starts_with("json:")) {
    return fail(ErrorKind::kUnsupported,
                "json: names are not supported: use --image-opts driver=FORMAT,file.filename=FILE");
  }
  if (names_protocol(name)) {
    return fail(ErrorKind::kUnsupported,
                "\"{}\" has a protocol, and only local files are served: write ./{} when it is a "
                "file of that name",
                printable(name, 200), printable(name, 200));
  }
  return std::string(name);
}

Result<void> check_cache_mode(std::string_view option, std::string_view value) {
  return one_of(option, value,
                {"none", "off", "writeback", "writethrough", "directsync", "unsafe"});
}

Result<void> check_aio_mode(std::string_view option, std::string_view value) {
  return one_of(option, value, {"threads", "native", "io_uring"});
}

Result<void> check_discard_mode(std::string_view option, std::string_view value) {
  return one_of(option, value, {"ignore", "off", "unmap", "on"});
}

Result<void> check_detect_zeroes_mode(std::string_view option, std::string_view value) {
  return one_of(option, value, {"off", "on", "unmap"});
}

}  // namespace underlay
