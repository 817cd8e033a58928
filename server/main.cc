// underlay-nbd: serves disk images over NBD, read-only.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <exception>
#include <filesystem>
#include <functional>
#include <iostream>
#include <optional>
#include <thread>

#include "io/confined_open.h"
#include "io/log.h"
#include "server/daemon.h"
#include "server/export.h"
#include "server/kernel_device.h"
#include "server/list_exports.h"
#include "server/listen_sockets.h"
#include "server/options.h"
#include "server/predecessor.h"
#include "server/server.h"
#include "server/usage.h"

namespace underlay {
namespace {

constexpr const char* kProgram = "underlay-nbd";
constexpr int kFailed = 1;
constexpr int kUsageError = 2;

// What the command line says of all images, beside what it says of one.
OpenOptions with_common_options(OpenOptions open, const Options& options) {
  open.start = options.offset;
  open.parents = options.parents;
  open.reader = options.reader;
  return open;
}

Result<std::vector<ExportedBitmap>> find_bitmaps(const Options& options, const Disk& disk) {
  std::vector<ExportedBitmap> found;
  for (const std::string& name : options.bitmaps) {
    found.push_back({.name = name, .bitmap = nullptr});
    found.back().bitmap = TRY(find_dirty_bitmap(disk, name));
  }
  return found;
}

// Opens the images that the command line names; --directory only has to exist.
Result<void> open_exports(const Options& options, const NamedFiles& files, Caches& caches, Log& log,
                          ExportCatalog& catalog) {
  for (const ExportOption& wanted : options.exports) {
    const OpenOptions open = with_common_options(wanted.open, options);
    OpenedDisk opened = TRY(open_disk(wanted.path, open, files, caches));
    for (const std::string& warning : opened.warnings) log.warn(warning);
    auto bitmaps = TRY(find_bitmaps(options, *opened.disk));
    catalog.add(std::make_shared<Export>(wanted.name, options.description, std::move(opened.disk),
                                         open.image.snapshot.value_or(""), std::move(bitmaps)));
  }
  std::error_code error;
  if (!options.directory.empty() && !std::filesystem::is_directory(options.directory, error)) {
    return in_file(fail(ErrorKind::kUsage, "--directory must name a folder"), options.directory);
  }
  return {};
}

unsigned core_count() { return std::max(1u, std::thread::hardware_concurrency()); }

unsigned ring_count(const Options& options) {
  const unsigned wanted = options.threads != 0 ? options.threads : core_count();
  // A connection lives on one thread: more threads than clients would only cost memory.
  return options.max_clients == 0 ? wanted : std::min(wanted, options.max_clients);
}

// Takes the place of the server that listens at --take-over. Until that has said so, a failure
// leaves everything as it is.
Result<void> take_over(const Options& options, ExportCatalog& catalog, Log& log, Server& server) {
  Predecessor predecessor = TRY(Predecessor::connect(options.take_over, server.signal_fd()));
  std::optional<PidFile> pid_file;
  std::optional<ListenSocket> for_successor;
  std::chrono::steady_clock::time_point paused;  // since when clients wait
  const auto take = [&]() -> Result<Inheritance> {
    TRY(predecessor.open_exports(catalog));
    if (!options.pid_file.empty()) {
      pid_file.emplace(TRY(PidFile::prepare(options.pid_file, predecessor.pid())));
    }
    if (!options.handover.empty() && options.handover != options.take_over) {
      for_successor = TRY(open_handover_socket(options.handover));
    }
    paused = std::chrono::steady_clock::now();
    TRY(predecessor.receive(catalog));
    return predecessor.take(pid_file ? pid_file->identity() : FileIdentity{});
  };
  auto inheritance = take();
  if (!inheritance) {
    predecessor.tell(inheritance.error());
    return Failure(std::move(inheritance).error());
  }
  if (options.handover == options.take_over && !inheritance->for_successor.empty()) {
    for_successor = std::move(inheritance->for_successor.front());
  }
  inheritance->for_successor.clear();
  const std::chrono::duration<double, std::milli> waited =
      std::chrono::steady_clock::now() - paused;
  log.detail(fmt::format("took over {} clients, who had to wait for {:.1f} ms",
                         inheritance->sessions.size(), waited.count()));
  server.inherit(*std::move(inheritance));
  if (for_successor) server.listen_for_successor(*std::move(for_successor));
  if (pid_file) {
    // The clients are here: a pid file that is out of order does not turn them away.
    if (const auto taken = pid_file->take(); !taken) log.error(taken.error().to_string());
    server.hold(*std::move(pid_file));
  }
  return {};
}

// Opens everything that clients come to. `inherited`: sockets of systemd; without any, and when one
// is needed, the options say where to listen.
Result<void> listen(const Options& options, std::vector<ListenSocket> inherited, bool needs_address,
                    Log& log, Server& server) {
  Inheritance own;
  own.sockets = std::move(inherited);
  if (own.sockets.empty() && needs_address) own.sockets = TRY(open_listen_sockets(options));
  for (const ListenSocket& socket : own.sockets) {
    log.detail(fmt::format("listening on {}", socket.address));
  }
  server.inherit(std::move(own));
  if (!options.handover.empty()) {
    server.listen_for_successor(TRY(open_handover_socket(options.handover)));
  }
  if (!options.pid_file.empty()) server.hold(TRY(PidFile::create(options.pid_file)));
  return {};
}

// Serves until the device is disconnected, or a signal asks to stop: then it is disconnected.
// `on_connected` is called, on another thread, once the device can be used.
Result<void> serve_device(Server& server, KernelDevice& device,
                          const std::function<void()>& on_connected) {
  for (UniqueFd& client : device.take_server_ends()) server.adopt(std::move(client));
  Result<void> connected;
  std::thread connecting([&] {
    connected = device.connect();
    if (connected) {
      on_connected();
    } else {
      ::kill(::getpid(), SIGTERM);  // ends the server
    }
  });
  server.run();
  connecting.join();
  TRY(std::move(connected));
  return device.disconnect();
}

// `inherited`: sockets that systemd handed over; without any, the options say where to listen.
Result<void> serve(const Options& options, std::vector<ListenSocket> inherited,
                   std::optional<Daemon>& daemon) {
  Log log(kProgram, options.verbose);
  std::optional<KernelDevice> device;
  if (!options.device.empty()) device.emplace(TRY(KernelDevice::prepare(options)));
  const Confinement files = TRY(Confinement::create(options.allow_paths));
  Caches caches(options.caches);
  std::string directory;
  if (!options.directory.empty()) directory = TRY(with_resolved_folder(options.directory + "/"));
  ExportCatalog catalog({.path = directory,
                         .description = options.description,
                         .open = with_common_options({}, options)},
                        files, caches, log);
  TRY(open_exports(options, files, caches, log, catalog));

  const ServerConfig config{
      .threads = ring_count(options),
      // One may hang in a file that does not answer, another with what is long.
      .workers = std::max(3u, core_count()),
      .max_clients = options.max_clients,
      .persistent = options.persistent && !device,
      .allocation_depth = options.allocation_depth,
      .poll = options.poll};
  const auto server = TRY(Server::create(config, catalog, log));
  const bool needs_address = !device || options.address_given;
  TRY(options.take_over.empty() ? listen(options, std::move(inherited), needs_address, log, *server)
                                : take_over(options, catalog, log, *server));
  const auto ready = [&] {
    if (daemon) daemon->ready(options.verbose);
  };
  if (device) {
    return serve_device(*server, *device, [&] {
      log.detail(fmt::format("NBD device {} is now connected", device->path()));
      ready();
    });
  }
  ready();
  server->run();
  return {};
}

Result<void> start_serving(const Options& options) {
  // Before the fork: systemd names the process that it started.
  std::vector<ListenSocket> inherited =
      TRY(inherited_sockets(options.address_given || !options.take_over.empty()));
  const bool device = !options.device.empty();
  if (device && !inherited.empty()) {
    return fail(ErrorKind::kUsage,
                "systemd handed sockets over (LISTEN_FDS): -c cannot be given as well");
  }
  std::optional<Daemon> daemon;
  if (options.fork || (device && !options.verbose)) {
    daemon.emplace(TRY(Daemon::fork_into_background()));
  }
  return serve(options, std::move(inherited), daemon);
}

// Not through stdio, which throws when standard error is closed.
void say(const std::string& line) {
  const std::string text = fmt::format("{}: {}\n", kProgram, line);
  (void)!::write(STDERR_FILENO, text.data(), text.size());
}

int report(const Error& error) {
  say(error.to_string());
  return kFailed;
}

int report_usage(const Error& error) {
  report(error);
  if (error.kind != ErrorKind::kUsage) return kFailed;
  say(fmt::format("try '{} --help' for more information", kProgram));
  return kUsageError;
}

int run(const std::vector<std::string>& arguments) {
  const auto command_line = parse_command_line(arguments);
  if (!command_line) return report_usage(command_line.error());
  const Options& options = command_line->options;
  Result<void> result;
  switch (command_line->action) {
    case CommandLine::Action::kPrintAndExit:
      std::cout << command_line->text;
      return std::cout.flush() ? 0 : kFailed;
    case CommandLine::Action::kListExports:
      result = list_exports(options, std::cout);
      break;
    case CommandLine::Action::kDisconnect:
      result = disconnect_device(options.device, std::cout, std::cerr);
      break;
    case CommandLine::Action::kServe:
      result = start_serving(options);
      break;
  }
  return result ? 0 : report(result.error());
}

// A caller may have closed the standard descriptors: an image must not get their numbers.
void fill_standard_descriptors() {
  int fd = 0;
  while (fd >= 0 && fd <= STDERR_FILENO) fd = ::open("/dev/null", O_RDWR);
  if (fd > STDERR_FILENO) ::close(fd);
}

}  // namespace
}  // namespace underlay

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  underlay::fill_standard_descriptors();
  try {
    return underlay::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::exception& error) {  // no memory, or no more threads
    underlay::say(error.what());
    return underlay::kFailed;
  }
}
