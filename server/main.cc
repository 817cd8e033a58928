// underlay-nbd: serves disk images over NBD, read-only.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
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
#include "server/server.h"
#include "server/usage.h"

namespace underlay {
namespace {

constexpr const char* kProgram = "underlay-nbd";
constexpr int kFailed = 1;
constexpr int kUsageError = 2;

// Opens the images that the command line names; --directory only has to exist.
Result<void> open_exports(const Options& options, const NamedFiles& files, Caches& caches, Log& log,
                          ExportCatalog& catalog) {
  for (const ExportOption& wanted : options.exports) {
    OpenOptions open = wanted.open;
    open.start = options.offset;
    OpenedDisk opened = TRY(open_disk(wanted.path, open, files, caches));
    for (const std::string& warning : opened.warnings) log.warn(warning);
    catalog.add(std::make_shared<Export>(wanted.name, options.description, std::move(opened.disk)));
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
  ExportCatalog catalog(
      {.path = directory, .description = options.description, .start = options.offset}, files,
      caches, log);
  TRY(open_exports(options, files, caches, log, catalog));

  std::vector<ListenSocket> sockets = std::move(inherited);
  if (sockets.empty() && (!device || options.address_given)) {
    sockets = TRY(open_listen_sockets(options));
  }
  for (const ListenSocket& socket : sockets) {
    log.detail(fmt::format("listening on {}", socket.address));
  }
  const ServerConfig config{.threads = ring_count(options),
                            .workers = std::max(2u, core_count()),
                            .max_clients = options.max_clients,
                            .persistent = options.persistent && !device,
                            .allocation_depth = options.allocation_depth};
  const auto server = TRY(Server::create(config, catalog, std::move(sockets), log));
  std::optional<PidFile> pid_file;
  if (!options.pid_file.empty()) pid_file.emplace(TRY(PidFile::create(options.pid_file)));
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
  std::vector<ListenSocket> inherited = TRY(inherited_sockets(options.address_given));
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
