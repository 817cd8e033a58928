#include "server/options.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <span>

#include "formats/file_name.h"
#include "formats/options/chain_options.h"
#include "formats/options/image_opts.h"
#include "formats/options/option_values.h"
#include "formats/snapshot_choice.h"
#include "io/nbd_source.h"
#include "server/limits.h"
#include "server/limits_text.h"
#include "server/option_rules.h"
#include "server/tls/tls_options.h"
#include "server/usage.h"

namespace underlay {
namespace {

constexpr size_t kMaxStringBytes = 4096;  // NBD protocol, "Values": strings
constexpr unsigned kMaxThreads = 256;
constexpr unsigned kMaxPoll = 1000;       // microseconds; a sleep costs less than a tenth of that
constexpr unsigned kMaxSlow = 3'600'000;  // milliseconds
constexpr uint64_t kMinCacheBytes = 1ull << 20;
constexpr uint64_t kMaxCacheBytes = 1ull << 40;
constexpr uint64_t kMinPrefetchRate = 1ull << 20;
constexpr uint64_t kMinDiskCacheBytes = 16ull << 20;  // some groups of blocks

// A whole number as strtoull(3) reads it with base 0, which is how qemu-nbd reads numbers: 0x is
// hexadecimal, a leading 0 octal. No sign, no spaces, no suffix.
std::optional<uint64_t> parse_number(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    base = 16;
    text.remove_prefix(2);
  } else if (text.size() > 1 && text.starts_with('0')) {
    base = 8;
    text.remove_prefix(1);
  }
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Result<uint64_t> number_within(std::string_view option, const std::string& text, uint64_t min,
                               uint64_t max) {
  const auto value = parse_number(text);
  if (!value || *value < min || *value > max) {
    return fail(ErrorKind::kUsage, "{}: \"{}\" is no number from {} to {}", option,
                printable(text, 80), min, max);
  }
  return *value;
}

Result<uint64_t> cache_bytes(std::string_view option, const std::string& text) {
  return parse_bytes(option, text, kMinCacheBytes, kMaxCacheBytes);
}

Result<void> check_refused(const GivenOptions& given) {
  for (const OptionRule& rule : option_rules()) {
    if (rule.refusal.empty() || !given.has(rule.name)) continue;
    const std::string name = rule.letter != 0 ? fmt::format("-{}, --{}", rule.letter, rule.name)
                                              : fmt::format("--{}", rule.name);
    return fail(ErrorKind::kUnsupported, "{} {}", name, rule.refusal);
  }
  return {};
}

// Options about writing and qemu's I/O engines: checked, so that a typing error is found, and
// without effect.
Result<void> check_idle_options(const GivenOptions& given) {
  const std::string discard = given.last_or("discard", "ignore");
  const std::string detect_zeroes = given.last_or("detect-zeroes", "off");
  TRY(check_cache_mode("--cache", given.last_or("cache", "writeback")));
  TRY(check_aio_mode("--aio", given.last_or("aio", "threads")));
  TRY(check_discard_mode("--discard", discard));
  TRY(check_detect_zeroes_mode("--detect-zeroes", detect_zeroes));
  if (detect_zeroes == "unmap" && discard != "unmap" && discard != "on") {
    return fail(ErrorKind::kUsage, "--detect-zeroes=unmap is only allowed with --discard=unmap");
  }
  return {};
}

Result<void> check_string(std::string_view option, const std::string& text) {
  if (text.size() <= kMaxStringBytes) return {};
  return fail(ErrorKind::kUsage, "{}: {} bytes are more than the {} that NBD allows", option,
              text.size(), kMaxStringBytes);
}

Result<void> read_tcp_address(const GivenOptions& given, Options& options) {
  options.bind_address = given.last_or("bind", options.bind_address);
  if (!given.has("port")) return {};
  options.port = given.last("port");
  // A word is the name of a service, which is looked up when the socket is opened.
  if (options.port.find_first_not_of("0123456789") != std::string::npos) return {};
  uint64_t number = 0;
  const char* end = options.port.data() + options.port.size();
  const auto parsed = std::from_chars(options.port.data(), end, number);
  constexpr uint64_t kMaxPort = std::numeric_limits<uint16_t>::max();
  if (parsed.ec != std::errc() || number < 1 || number > kMaxPort) {
    return fail(ErrorKind::kUsage, "-p: \"{}\" is no port from 1 to {}",
                printable(options.port, 80), kMaxPort);
  }
  return {};
}

// As in qemu-nbd, -k wins when there are -b or -p as well.
Result<void> read_address(const GivenOptions& given, Options& options) {
  TRY(read_tcp_address(given, options));
  options.address_given = given.has("socket") || given.has("bind") || given.has("port");
  if (!given.has("socket")) return {};
  options.socket_path = given.last("socket");
  if (options.socket_path.starts_with('/')) return {};
  return fail(ErrorKind::kUsage, "-k: socket path \"{}\" must be absolute",
              printable(options.socket_path, 200));
}

// What -f, -l and --image-opts make of one IMAGE argument.
Result<ExportOption> make_export(const GivenOptions& given, std::span<const SecretFile> secrets,
                                 const std::string& name, const std::string& image) {
  ExportOption made;
  made.name = name;
  if (given.flag("image-opts")) {
    ImageOpts opts = TRY(parse_image_opts(image, secrets));
    made.path = std::move(opts.path);
    made.open = std::move(opts.open);
  } else {
    // What the bytes of an export are, nobody guesses: the server has unpacked them, mostly.
    const bool is_export = names_nbd_export(image);
    made.path = is_export ? image : TRY(plain_file_name(image));
    made.open.format = given.last_or("format", is_export ? kRawFormat : "");
  }
  if (given.flag("force-share")) made.open.sharing = FileSharing::kAnyWriter;
  if (given.has("load-snapshot")) made.open.image.snapshot = given.last("load-snapshot");
  return made;
}

Result<void> add_export(const GivenOptions& given, const std::string& name,
                        const std::string& image, Options& options) {
  for (const ExportOption& other : options.exports) {
    if (other.name == name) {
      return fail(ErrorKind::kUsage,
                  "two exports have the name \"{}\": every --export needs its own",
                  printable(name, 200));
    }
  }
  options.exports.push_back(TRY(make_export(given, options.secrets, name, image)));
  return {};
}

Result<void> read_named_exports(const GivenOptions& given, Options& options) {
  for (const std::string& word : given.each("export")) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals + 1 == word.size()) {
      return fail(ErrorKind::kUsage, "--export: \"{}\" is not NAME=IMAGE", printable(word, 200));
    }
    const std::string name = word.substr(0, equals);
    TRY(check_string("--export", name));
    TRY(add_export(given, name, word.substr(equals + 1), options));
  }
  return {};
}

Result<void> read_objects(const GivenOptions& given, Options& options) {
  for (const std::string& word : given.each("object")) {
    if (is_tls_object(word) || is_authz_object(word)) continue;  // read_tls()
    SecretFile secret = TRY(parse_secret_object("--object", word));
    if (find_secret("--object", secret.id, options.secrets)) {
      return fail(ErrorKind::kUsage, "--object: two secrets have the id \"{}\"",
                  printable(secret.id, 80));
    }
    options.secrets.push_back(std::move(secret));
  }
  return {};
}

Result<void> read_parents(const GivenOptions& given, Options& options) {
  for (const std::string& word : given.each("parent")) {
    options.parents.push_back(TRY(parse_parent_path("--parent", word)));
  }
  return {};
}

// A bitmap is about the active disk of an image, from its first byte on. Asking for one twice is
// asking once.
Result<void> read_bitmaps(const GivenOptions& given, Options& options) {
  for (const std::string& name : given.each("bitmap")) {
    const auto known = std::find(options.bitmaps.begin(), options.bitmaps.end(), name);
    if (known == options.bitmaps.end()) options.bitmaps.push_back(name);
  }
  if (options.bitmaps.size() > limits::kDirtyBitmaps) {
    return fail(ErrorKind::kUsage, "-B: {} bitmaps are more than {}", options.bitmaps.size(),
                limits::kDirtyBitmaps);
  }
  if (options.bitmaps.empty()) return {};
  if (given.has("load-snapshot")) {
    return fail(ErrorKind::kUsage,
                "-B and -l: dirty bitmaps are about the active disk, not about a snapshot");
  }
  if (options.offset != 0) {
    return fail(ErrorKind::kUsage, "-B and -o: dirty bitmaps are about the whole disk");
  }
  return {};
}

Result<void> read_exports(const GivenOptions& given, Options& options) {
  const bool others = given.has("export") || given.has("directory");
  if (given.files().size() > 1 || (given.files().empty() && !others)) {
    return fail(ErrorKind::kUsage,
                "Invalid number of arguments: {} image files, and one is needed (or --export, "
                "--directory)",
                given.files().size());
  }
  for (const char* name : {"format", "load-snapshot", "image-opts", "bitmap"}) {
    if (!given.files().empty() || given.has("export") || !given.has(name)) continue;
    return fail(ErrorKind::kUsage, "--{} is about FILE and --export, and there is none", name);
  }
  if (given.files().empty() && given.has("export-name")) {
    return fail(ErrorKind::kUsage, "-x names the export of FILE, and there is no FILE");
  }
  if (given.flag("image-opts") && given.has("format")) {
    return fail(ErrorKind::kUsage, "--image-opts and -f are mutually exclusive: say driver=FORMAT");
  }
  if (given.has("load-snapshot")) TRY(parse_snapshot_choice(given.last("load-snapshot")));
  const std::string name = given.last_or("export-name", "");
  TRY(check_string("-x", name));
  if (!given.files().empty()) TRY(add_export(given, name, given.files().front(), options));
  TRY(read_named_exports(given, options));

  options.directory = given.last_or("directory", "");
  if (given.has("directory") && options.directory.empty()) {
    return fail(ErrorKind::kUsage, "--directory: the folder's name is empty");
  }
  options.allow_paths = given.each("allow-path");
  const bool one_is_shared = std::any_of(
      options.exports.begin(), options.exports.end(),
      [](const ExportOption& made) { return made.open.sharing == FileSharing::kAnyWriter; });
  if (given.flag("force-share") || one_is_shared) options.sharing = FileSharing::kAnyWriter;
  TRY(read_parents(given, options));
  if (given.has("reader")) options.reader = TRY(parse_reader("--reader", given.last("reader")));
  options.description = given.last_or("description", "");
  TRY(check_string("-D", options.description));
  // Offsets in files are signed.
  constexpr uint64_t kMaxOffset = std::numeric_limits<int64_t>::max();
  options.offset = TRY(number_within("-o", given.last_or("offset", "0"), 0, kMaxOffset));
  options.allocation_depth = given.flag("allocation-depth");
  return read_bitmaps(given, options);
}

// The path of a socket; "" when the option was not given.
Result<std::string> socket_path(const GivenOptions& given, std::string_view name) {
  const std::string path = given.last_or(name, "");
  if (!given.has(name) || path.starts_with('/')) return path;
  return fail(ErrorKind::kUsage, "--{}: socket path \"{}\" must be absolute", name,
              printable(path, 200));
}

// The cache of images on servers.
Result<void> read_cache(const GivenOptions& given, Options& options) {
  options.cache_dir = given.last_or("cache-dir", "");
  if (given.has("cache-dir") && options.cache_dir.empty()) {
    return fail(ErrorKind::kUsage, "--cache-dir: the folder's name is empty");
  }
  for (const char* name : {"cache-size", "cache-immutable", "prefetch", "prefetch-rate"}) {
    if (!given.has(name) || !options.cache_dir.empty()) continue;
    return fail(ErrorKind::kUsage, "--{} is about --cache-dir DIR, and there is none", name);
  }
  if (given.has("cache-size")) {
    options.cache_size = TRY(
        parse_bytes("--cache-size", given.last("cache-size"), kMinDiskCacheBytes, kMaxCacheBytes));
  }
  options.cache_immutable = given.each("cache-immutable");
  if (given.has("prefetch")) {
    const std::string what = given.last("prefetch");
    TRY(check_one_of("--prefetch", what, {"all", "boot"}));
    options.prefetch = what == "all" ? PrefetchWhat::kAll : PrefetchWhat::kBoot;
  }
  if (given.has("prefetch-rate")) {
    options.prefetch_rate = TRY(parse_bytes("--prefetch-rate", given.last("prefetch-rate"),
                                            kMinPrefetchRate, kMaxCacheBytes));
  }
  return {};
}

Result<void> read_service(const GivenOptions& given, Options& options) {
  constexpr uint64_t kMaxClients = std::numeric_limits<int>::max();
  options.max_clients =
      static_cast<unsigned>(TRY(number_within("-e", given.last_or("shared", "1"), 0, kMaxClients)));
  options.persistent = given.flag("persistent");
  options.fork = given.flag("fork");
  options.pid_file = given.last_or("pid-file", "");
  if (given.has("pid-file") && options.pid_file.empty()) {
    return fail(ErrorKind::kUsage, "--pid-file: the file's name is empty");
  }
  const std::string log = given.last_or("log", "auto");
  TRY(check_one_of("--log", log, {"auto", "stderr", "journal"}));
  if (log == "stderr") options.log = LogTarget::kStderr;
  if (log == "journal") options.log = LogTarget::kJournal;
  options.control = TRY(socket_path(given, "control"));
  options.config = given.last_or("config", "");
  options.handover = TRY(socket_path(given, "handover"));
  options.take_over = TRY(socket_path(given, "take-over"));
  if (given.has("connect") && (given.has("handover") || given.has("take-over"))) {
    return fail(ErrorKind::kUsage,
                "-c disconnects its device when this process ends, so --handover and --take-over "
                "do not go with it: attach the device with underlay-thin");
  }
  if (given.has("cluster-cache")) {
    options.caches.clusters = TRY(cache_bytes("--cluster-cache", given.last("cluster-cache")));
  }
  if (given.has("table-cache")) {
    options.caches.tables = TRY(cache_bytes("--table-cache", given.last("table-cache")));
  }
  TRY(read_cache(given, options));
  options.metrics = given.last_or("metrics", "");
  if (given.has("metrics") && options.metrics.empty()) {
    return fail(ErrorKind::kUsage, "--metrics: the address is empty");
  }
  options.slow_request = std::chrono::milliseconds(
      TRY(number_within("--slow-requests", given.last_or("slow-requests", "0"), 0, kMaxSlow)));
  const std::string on_error = given.last_or("on-error", "eio");
  TRY(check_one_of("--on-error", on_error, {"eio", "hold"}));
  options.on_error = on_error == "hold" ? OnError::kHold : OnError::kEio;
  options.threads = static_cast<unsigned>(
      TRY(number_within("--threads", given.last_or("threads", "0"), 0, kMaxThreads)));
  options.poll = std::chrono::microseconds(
      TRY(number_within("--poll", given.last_or("poll", "0"), 0, kMaxPoll)));
  return {};
}

Result<void> read_rights(const GivenOptions& given, Options& options) {
  const std::string sandbox = given.last_or("sandbox", options.sandbox ? "on" : "off");
  TRY(check_one_of("--sandbox", sandbox, {"on", "off"}));
  options.sandbox = sandbox == "on";
  if (options.sandbox && !is_cage_possible()) {
    return fail(ErrorKind::kUnsupported,
                "--sandbox=on: this build has sanitizers, which it would "
                "not let work");
  }
  options.user = given.last_or("user", "");
  if (given.has("user") && options.user.empty()) {
    return fail(ErrorKind::kUsage, "--user: the user's name is empty");
  }
  if (given.has("user") && given.has("connect")) {
    return fail(ErrorKind::kUsage,
                "-c takes its device down when it ends, which needs root: --user "
                "does not go with it");
  }
  options.peer_users = given.each("peer-user");
  options.peer_groups = given.each("peer-group");
  for (const std::string& word : given.each("export-rule")) {
    options.rules.push_back(TRY(parse_export_rule("--export-rule", word)));
    if (options.rules.back().needs_tls && options.tls == TlsMode::kOff) {
      return fail(ErrorKind::kUsage, "--export-rule: tls=require needs --tls-creds");
    }
  }
  return {};
}

// -L describes somebody else's exports, so nothing that makes an export goes with it. As in
// qemu-nbd, options that only say how to serve are ignored.
Result<void> check_list_mode(const GivenOptions& given) {
  if (!given.files().empty()) {
    return fail(ErrorKind::kUsage, "List mode (-L) is incompatible with a file name");
  }
  if (given.flag("fork")) return fail(ErrorKind::kUsage, "List mode (-L) does not --fork");
  for (const char* name : {"export-name", "description", "offset", "allocation-depth", "bitmap",
                           "format", "load-snapshot", "cache", "aio", "discard", "detect-zeroes",
                           "export", "directory", "connect", "disconnect"}) {
    if (!given.has(name)) continue;
    return fail(ErrorKind::kUsage, "List mode (-L) is incompatible with per-device settings (--{})",
                name);
  }
  return {};
}

// -c: the kernel is a client of one export, FILE's if there is one.
Result<void> read_device(const GivenOptions& given, Options& options) {
  if (!given.has("connect")) return {};
  options.device = given.last("connect");
  if (options.device.empty()) return fail(ErrorKind::kUsage, "-c: the device's name is empty");
  if (!given.files().empty() || options.exports.size() == 1) return {};
  return fail(ErrorKind::kUsage, "-c: which image is {} to be? Name it as FILE",
              printable(options.device, 200));
}

// As in qemu-nbd, the one word that is no option is the device, and -d wins over all but -L.
Result<void> read_disconnect(const GivenOptions& given, Options& options) {
  if (given.files().size() != 1) {
    return fail(ErrorKind::kUsage,
                "Invalid number of arguments: {} devices to disconnect, and one is needed",
                given.files().size());
  }
  options.device = given.files().front();
  return {};
}

// Which folders stay open is all that the cage depends on.
Result<void> read_sandbox_test(const GivenOptions& given, Options& options) {
  if (!given.files().empty()) {
    return fail(ErrorKind::kUsage, "--sandbox-test serves no file");
  }
  options.directory = given.last_or("directory", "");
  options.allow_paths = given.each("allow-path");
  options.cache_dir = given.last_or("cache-dir", "");
  options.sandbox = true;
  return is_cage_possible() ? Result<void>()
                            : fail(ErrorKind::kUnsupported,
                                   "--sandbox-test: this build has sanitizers, which the "
                                   "sandbox would not let work");
}

}  // namespace

Result<uint64_t> parse_bytes(std::string_view option, const std::string& text, uint64_t least,
                             uint64_t most) {
  std::string_view digits = text;
  unsigned shift = 0;
  if (digits.ends_with('K') || digits.ends_with('k')) shift = 10;
  if (digits.ends_with('M') || digits.ends_with('m')) shift = 20;
  if (digits.ends_with('G') || digits.ends_with('g')) shift = 30;
  if (shift != 0) digits.remove_suffix(1);
  const auto number = parse_number(digits);
  const auto bytes = number ? checked_mul(*number, uint64_t{1} << shift) : std::nullopt;
  if (!bytes || *bytes < least || *bytes > most) {
    return fail(ErrorKind::kUsage, "{}: \"{}\" is no size from {}M to {}G (suffixes K, M, G)",
                option, printable(text, 80), least >> 20, most >> 30);
  }
  return *bytes;
}

Result<CommandLine> parse_command_line(const std::vector<std::string>& arguments) {
  return parse_command_line(TRY(GivenOptions::read(arguments)));
}

Result<CommandLine> parse_command_line(const GivenOptions& given) {
  CommandLine line;
  if (given.has("help") || given.has("version")) {
    line.action = CommandLine::Action::kPrintAndExit;
    line.text = given.has("help") ? usage_text() : version_text();
    return line;
  }
  if (given.has("help-limits")) {
    line.action = CommandLine::Action::kPrintAndExit;
    line.text = limits_text();
    return line;
  }
  TRY(check_refused(given));
  TRY(read_address(given, line.options));
  line.options.verbose = given.flag("verbose");
  if (given.flag("list")) {
    TRY(check_list_mode(given));
    TRY(read_tls_of_client(given, line.options));
    line.action = CommandLine::Action::kListExports;
    return line;
  }
  TRY(check_idle_options(given));
  if (given.flag("sandbox-test")) {
    TRY(read_sandbox_test(given, line.options));
    line.action = CommandLine::Action::kTestSandbox;
    return line;
  }
  if (given.flag("disconnect")) {
    TRY(read_disconnect(given, line.options));
    line.action = CommandLine::Action::kDisconnect;
    return line;
  }
  TRY(read_objects(given, line.options));
  TRY(read_tls(given, line.options));
  TRY(read_exports(given, line.options));
  TRY(read_device(given, line.options));
  TRY(read_service(given, line.options));
  TRY(read_rights(given, line.options));
  return line;
}

}  // namespace underlay
