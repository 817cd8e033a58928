// underlay-nbd: serves disk images over NBD, read-only.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <iostream>
#include <optional>
#include <thread>

#include "formats/load_ahead.h"
#include "io/cache/remote_cache.h"
#include "io/confined_open.h"
#include "io/journal.h"
#include "io/log.h"
#include "io/nbd_dial.h"
#include "io/nbd_source.h"
#include "server/cage.h"
#include "server/cage_plan.h"
#include "server/cage_test.h"
#include "server/control/control_client.h"
#include "server/control/live_control.h"
#include "server/daemon.h"
#include "server/entry_fields.h"
#include "server/export.h"
#include "server/export_plan.h"
#include "server/kernel_device.h"
#include "server/limits.h"
#include "server/list_exports.h"
#include "server/listen_sockets.h"
#include "server/metrics/metrics_server.h"
#include "server/metrics/metrics_text.h"
#include "server/option_rules.h"
#include "server/options.h"
#include "server/predecessor.h"
#include "server/server.h"
#include "server/service_manager.h"
#include "server/tls/current_credentials.h"
#include "server/usage.h"
#include "server/user_names.h"

namespace underlay {
namespace {

constexpr const char* kProgram = "underlay-nbd";
constexpr int kFailed = 1;
constexpr int kUsageError = 2;

// Opens the images that the command line names; --directory only has to exist.
Result<void> open_exports(const Options& options, const NamedFiles& files, Caches& caches, Log& log,
                          ExportCatalog& catalog) {
  for (const ExportPlan& plan : export_plans(options)) {
    auto opened = TRY(open_export(plan, catalog.service_for(plan.name), files, caches, log));
    TRY(catalog.add(std::move(opened)));
  }
  std::error_code error;
  if (!options.directory.empty() && !std::filesystem::is_directory(options.directory, error)) {
    return in_file(fail(ErrorKind::kUsage, "--directory must name a folder"), options.directory);
  }
  return {};
}

// Null without --cache-dir.
Result<std::shared_ptr<RemoteCache>> open_remote_cache(const Options& options,
                                                       const std::optional<ServiceUser>& user,
                                                       Log& log) {
  if (options.cache_dir.empty()) return nullptr;
  RemoteCache::Config config{.disk = {.path = options.cache_dir, .limit = options.cache_size},
                             .prefetch = {.what = options.prefetch, .rate = options.prefetch_rate},
                             .immutable = options.cache_immutable};
  if (user) config.disk.owner = CacheOwner{.user = user->user, .group = user->group};
  return std::shared_ptr<RemoteCache>(TRY(RemoteCache::open(config, log)));
}

unsigned core_count() { return std::max(1u, std::thread::hardware_concurrency()); }

unsigned ring_count(const Options& options) {
  const unsigned wanted = options.threads != 0 ? options.threads : core_count();
  // A connection lives on one thread: more threads than clients would only cost memory.
  return options.max_clients == 0 ? wanted : std::min(wanted, options.max_clients);
}

// One may hang in a file that does not answer, another with what is long.
unsigned near_workers() { return std::max(3u, core_count()); }

// Images that more workers wait for than there are processors.
bool has_far_images(const Options& options, const CagePlan& cage) {
  return cage.connects() || std::ranges::any_of(options.exports, [](const ExportOption& exported) {
           return names_nbd_export(exported.path);
         });
}

// systemd waits only for the end of a main process that is its own child. So the parent of --fork
// goes first; a second is much more than it takes.
void outlive_parent(Daemon& daemon) {
  const pid_t parent = ::getppid();
  daemon.ready(true);
  for (int i = 0; i < 1000 && ::getppid() == parent; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Takes the place of the server that listens at --take-over. Until that has said so, a failure
// leaves everything as it is.
Result<void> take_over(const Options& options, ExportCatalog& catalog, Log& log,
                       ServiceManager& manager, std::optional<Daemon>& daemon, Server& server) {
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
  if (daemon && manager.is_there()) outlive_parent(*daemon);
  // While the predecessor lives: its end would be taken for that of the service.
  manager.main_process_is(::getpid());
  if (for_successor) server.listen_for_successor(*std::move(for_successor));
  if (pid_file) {
    // The clients are here: a pid file that is out of order does not turn them away.
    if (const auto taken = pid_file->take(); !taken) {
      log.error(taken.error().to_string(), EntryFields().error(taken.error()));
    }
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

Result<PeerRules> peer_rules(const Options& options) {
  PeerRules rules;
  for (const std::string& user : options.peer_users) {
    rules.users.push_back(TRY(find_user("--peer-user", user)));
  }
  for (const std::string& group : options.peer_groups) {
    rules.groups.push_back(TRY(find_group("--peer-group", group)));
  }
  return rules;
}

// A variable that is left over from something else must not keep the server from serving.
ServiceManager service_manager(Log& log) {
  auto manager = ServiceManager::from_environment();
  if (manager) return *std::move(manager);
  log.warn(manager.error().to_string());
  return {};
}

// Everything is open: the rest of the process's life needs less. No thread has been started yet.
Result<void> give_up_rights(const Options& options, const std::optional<ServiceUser>& user,
                            const CagePlan& cage, Log& log) {
  if (user) TRY(become(*user));
  if (!options.sandbox) return {};
  // What later images may need of libraries is loaded now: the cage loads none.
  if (!cage.folders.empty()) load_for_later_images(options.reader);
  if (!options.device.empty()) (void)load_libnbd();
  auto report = enter_cage(cage);
  if (!report) {
    return with_context(std::move(report).error(), "cannot enter the sandbox (--sandbox=off): ");
  }
  for (const std::string& missing : report->missing) {
    log.detail(fmt::format("the sandbox is not whole: this kernel has no {}", missing));
  }
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

// None when the log goes to standard error. What is said before there is a log, and why the
// server does not start, goes there always: to whoever started it.
Result<Journal> open_journal(LogTarget target) {
  if (target == LogTarget::kStderr) return Journal();
  if (target == LogTarget::kAuto && !stderr_is_journal()) return Journal();
  return Journal::connect();
}

// What is open of --control; nothing without it.
Result<std::optional<ListenSocket>> open_control(const Options& options, Log& log) {
  if (options.control.empty()) return std::nullopt;
  const bool take_over = !options.take_over.empty();
  auto opened = open_control_socket(options.control, take_over);
  if (opened) return *std::move(opened);
  if (!take_over) return Failure(std::move(opened).error());
  // The clients are here: a socket that cannot be had does not turn them away.
  log.error(opened.error().to_string(), EntryFields().error(opened.error()));
  return std::nullopt;
}

// `inherited`: sockets that systemd handed over; without any, the options say where to listen.
// `caches` outlive all that is served.
Result<void> serve_with(Caches& caches, const StartedProgram& program,
                        std::vector<ListenSocket> inherited, std::optional<Daemon>& daemon,
                        Log& log) {
  const Options& options = program.options;
  ServiceManager manager = service_manager(log);
  const PeerRules peers = TRY(peer_rules(options));
  std::optional<ServiceUser> user;
  if (!options.user.empty()) user = TRY(find_service_user("--user", options.user));
  std::optional<KernelDevice> device;
  if (!options.device.empty()) device.emplace(TRY(KernelDevice::prepare(options)));
  caches.remote = TRY(open_remote_cache(options, user, log));
  const Confinement files =
      TRY(Confinement::create(options.allow_paths, options.sharing, caches.remote));
  std::string directory;
  if (!options.directory.empty()) directory = TRY(with_resolved_folder(options.directory + "/"));
  ExportCatalog catalog({.path = directory,
                         .description = options.description,
                         .open = with_common_options({}, options),
                         .rules = options.rules},
                        files, caches, log);
  TRY(open_exports(options, files, caches, log, catalog));

  CurrentCredentials credentials(TRY(load_credentials(options)));
  const CagePlan cage = cage_plan(options);
  const bool far = has_far_images(options, cage);
  const ServerConfig config{.threads = ring_count(options),
                            .workers = near_workers() + (far ? limits::kFarReads : 0),
                            .near_workers = far ? near_workers() : 1,
                            .max_clients = options.max_clients,
                            .persistent = options.persistent && !device,
                            .allocation_depth = options.allocation_depth,
                            .on_error = options.on_error,
                            .poll = options.poll,
                            .slow_request = options.slow_request,
                            .peers = peers,
                            .tls = options.tls};
  const auto server = TRY(Server::create(config, catalog, credentials, log, manager));
  std::vector<ListenSocket> metrics_sockets;
  if (!options.metrics.empty()) {
    TRY(MetricsServer::load());
    metrics_sockets =
        TRY(open_service_sockets("--metrics", options.metrics, !options.take_over.empty()));
  }
  const bool needs_address = !device || options.address_given;
  TRY(options.take_over.empty() ? listen(options, std::move(inherited), needs_address, log, *server)
                                : take_over(options, catalog, log, manager, daemon, *server));
  auto control_socket = TRY(open_control(options, log));
  LiveControl live(program, *server,
                   {.catalog = catalog,
                    .credentials = credentials,
                    .files = files,
                    .caches = caches,
                    .log = log});
  TRY(give_up_rights(options, user, cage, log));
  if (caches.remote) caches.remote->start();
  const auto metrics = TRY(MetricsServer::start(std::move(metrics_sockets), [&] {
    return metrics_text(catalog, caches, server->metrics());
  }));
  const auto control = TRY(live.start(std::move(control_socket)));
  const auto ready = [&] {
    // The standard error of a service goes to its manager's log.
    if (daemon) daemon->ready(options.verbose || manager.is_there());
    manager.ready();
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

Result<void> serve(const StartedProgram& program, std::vector<ListenSocket> inherited,
                   std::optional<Daemon>& daemon) {
  const Options& options = program.options;
  auto journal = open_journal(options.log);
  Log log(kProgram, options.verbose, journal ? *std::move(journal) : Journal());
  if (!journal) log.warn(journal.error().to_string() + "; the log goes to standard error");
  Caches caches(options.caches);
  auto result = serve_with(caches, program, std::move(inherited), daemon, log);
  if (caches.remote && !caches.remote->end(limits::kFetchesEndTime)) {
    // Its threads hold what would be destroyed.
    log.detail("a server of images does not answer: ending without it");
    if (!result) log.error(result.error().to_string());
    std::_Exit(result ? 0 : kFailed);
  }
  return result;
}

// Shells and systemd give 1024, for programs that use select().
void raise_open_files() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= limits::kOpenFiles) return;
  files.rlim_cur = std::min<rlim_t>(files.rlim_max, limits::kOpenFiles);
  (void)::setrlimit(RLIMIT_NOFILE, &files);  // what there is must do, then
}

Result<void> start_serving(const StartedProgram& program) {
  const Options& options = program.options;
  raise_open_files();
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
  return serve(program, std::move(inherited), daemon);
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
  if (!arguments.empty() && arguments.front() == "ctl") {
    return run_control_client({arguments.begin() + 1, arguments.end()});
  }
  const auto given = GivenOptions::read(arguments);
  if (!given) return report_usage(given.error());
  const auto command_line = parse_command_line(*given);
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
    case CommandLine::Action::kTestSandbox:
      result = test_cage(cage_plan(options), std::cout);
      break;
    case CommandLine::Action::kServe:
      result = start_serving({.arguments = arguments, .given = *given, .options = options});
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
  underlay::mark_if_root_may_depend_on_us(argv);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a cache that may not grow is no reason to end
  underlay::fill_standard_descriptors();
  try {
    return underlay::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::exception& error) {  // no memory, or no more threads
    underlay::say(error.what());
    return underlay::kFailed;
  }
}
