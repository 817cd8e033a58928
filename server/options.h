// The command line of underlay-nbd: qemu-nbd's options with qemu-nbd's meaning, and a few of its
// own.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "formats/open_chain.h"
#include "io/cache/prefetcher.h"
#include "io/error.h"
#include "server/cage.h"
#include "server/handshake.h"
#include "server/held_requests.h"
#include "server/rules/export_rule.h"
#include "server/tls/tls_object.h"

namespace underlay {

class GivenOptions;

// --log. kAuto: the journal when standard error goes there anyway.
enum class LogTarget : uint8_t { kAuto, kStderr, kJournal };

// One image that the command line names.
struct ExportOption {
  std::string name;  // "" is the default export
  std::string path;  // the image
  OpenOptions open;  // -f, -l, --image-opts
};

struct Options {
  // What is served.
  std::vector<ExportOption> exports;             // FILE (under -x), then each --export
  std::string directory;                         // --directory, "" = none
  std::vector<std::string> allow_paths;          // --allow-path
  FileSharing sharing = FileSharing::kNoWriter;  // -U: of all images
  std::string description;                       // -D, of all exports
  uint64_t offset = 0;                           // -o, bytes, of all exports; fits in an off_t
  std::vector<ParentPath> parents;               // --parent, of all images
  std::vector<SecretFile> secrets;               // --object, no id twice
  ReaderChoice reader = ReaderChoice::kOwn;      // --reader, of all images
  bool allocation_depth = false;                 // -A
  std::vector<std::string> bitmaps;              // -B, of each of `exports`; no name twice

  // Where. A socket path, or address and port; neither when systemd handed sockets over.
  std::string socket_path;               // -k
  std::string bind_address = "0.0.0.0";  // -b
  std::string port = "10809";            // -p: 1 to 65535, or the name of a service
  bool address_given = false;            // any of -k, -b, -p stood on the command line
  std::string device;                    // -c, -d: the kernel's nbd device, "" = none

  std::vector<ExportRule> rules;  // --export-rule, the first that matches counts

  // Encrypted or not.
  TlsMode tls = TlsMode::kOff;           // --tls; with --tls-creds alone as in qemu-nbd: kRequire
  std::optional<TlsObject> tls_creds;    // --tls-creds; of a client only for -L
  std::optional<AuthzObject> tls_authz;  // --tls-authz

  // How.
  unsigned max_clients = 1;                  // -e; 0 = as many as the server's own limit allows
  bool persistent = false;                   // -t
  bool fork = false;                         // --fork
  std::string pid_file;                      // --pid-file, "" = none
  bool verbose = false;                      // -v
  LogTarget log = LogTarget::kAuto;          // --log
  Caches::Budget caches;                     // --cluster-cache, --table-cache
  std::string cache_dir;                     // --cache-dir, "" = none
  uint64_t cache_size = 10ull << 30;         // --cache-size, bytes
  std::vector<std::string> cache_immutable;  // --cache-immutable
  PrefetchWhat prefetch = PrefetchWhat::kNothing;  // --prefetch
  uint64_t prefetch_rate = 32ull << 20;            // --prefetch-rate, bytes a second
  std::string handover;                            // --handover: absolute path, "" = none
  std::string control;                             // --control: absolute path, "" = none
  std::string config;                              // --config, "" = none
  std::string take_over;             // --take-over: as handover; then the address is not used
  OnError on_error = OnError::kEio;  // --on-error
  std::string metrics;               // --metrics: PATH or HOST:PORT, "" = none
  std::chrono::milliseconds slow_request{};  // --slow-requests; zero: none are logged
  unsigned threads = 0;  // --threads: rings, at most one a client; 0 = one for each processor
  std::chrono::microseconds poll{};  // --poll: how long a ring looks for work before it sleeps

  // With which rights.
  bool sandbox = is_cage_possible();     // --sandbox
  std::string user;                      // --user: USER[:GROUP], "" = stay who we are
  std::vector<std::string> peer_users;   // --peer-user
  std::vector<std::string> peer_groups;  // --peer-group
};

// What the command line asks for.
struct CommandLine {
  enum class Action { kServe, kListExports, kDisconnect, kTestSandbox, kPrintAndExit };
  Action action = Action::kServe;
  Options options;   // kServe, kListExports; of kDisconnect only the device
  std::string text;  // kPrintAndExit (-h, -V): what to print
};

// A number of bytes with a suffix K, M or G (or none), from `least` to `most`, which are whole MiB.
Result<uint64_t> parse_bytes(std::string_view option, const std::string& text, uint64_t least,
                             uint64_t most);

// Parses `arguments` (without the program's name). Options that qemu-nbd has and this program does
// not serve (-s, -P, ...) fail with a line that says so: kUnsupported. Everything
// that is no valid use fails with kUsage. Reads the file that --config names; options on the
// command line win over it, those that may be repeated add up.
Result<CommandLine> parse_command_line(const std::vector<std::string>& arguments);
// The same of options that have been read.
Result<CommandLine> parse_command_line(const GivenOptions& given);

}  // namespace underlay
