#include "tools/thin/watch.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <map>
#include <optional>
#include <vector>

#include "io/kernel_nbd.h"
#include "io/log.h"
#include "tools/thin/pidfd.h"
#include "tools/thin/registry_store.h"
#include "tools/thin/repair.h"
#include "tools/thin/retry_delay.h"
#include "tools/thin/server_process.h"

namespace underlay::thin {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// How often the registry and the devices are looked at when nothing is heard.
constexpr std::chrono::seconds kLookAgain{2};
constexpr size_t kMostRepairs = 16;                // at the same time
constexpr std::chrono::seconds kFinishRepairs{5};  // when asked to end

// One attached image.
struct Watched {
  ImageRecord image;
  KernelNbdDevice device;
  UniqueFd server;                             // pidfd; not valid: not known, or remote
  std::optional<Clock::time_point> repair_at;  // nullopt: nothing to do
  std::string reason;                          // why; "": only to make sure
  std::optional<Repair> repair;
  RetryDelay delay;
  unsigned failures = 0;  // in a row
  bool present = true;    // its device is there

  bool wants_repair() const { return present && repair_at && !repair; }
};

class Watch {
 public:
  Watch(const Host& host, KernelNbdEvents events, UniqueFd signals, bool once)
      : host_(host), events_(std::move(events)), signals_(std::move(signals)), once_(once) {}

  Result<void> run();

 private:
  void look();
  void look_at(const ImageRecord& image, const KernelNbdDevice& device);
  void look_at_server(Watched& watched);
  void need_repair(Watched& watched, std::string reason);
  void make_sure_of_all();
  void begin_repairs();
  void end_repair(Watched& watched);
  void hear_events();
  bool wait();  // false: asked to end
  void finish_repairs();
  bool is_idle() const;
  size_t repairs() const;
  int wait_milliseconds() const;

  const Host& host_;
  KernelNbdEvents events_;
  UniqueFd signals_;
  const bool once_;
  Log log_{"underlay-thin", true};
  std::map<std::string, Watched> images_;  // by id
  std::string last_trouble_;               // in looking: said once
  Clock::time_point next_look_;
  unsigned failed_ = 0;  // images, with `once`
};

// What is attached according to the kernel, and known to the registry.
Result<std::vector<std::pair<ImageRecord, KernelNbdDevice>>> attached_images(const Host& host) {
  const Registry registry = TRY(read_registry(host.state_dir));
  std::vector<std::pair<ImageRecord, KernelNbdDevice>> found;
  for (const KernelNbdDevice& device : TRY(connected_kernel_nbd())) {
    const auto image =
        std::find_if(registry.images.begin(), registry.images.end(),
                     [&](const ImageRecord& record) { return record.backend == device.backend; });
    if (image != registry.images.end()) found.emplace_back(*image, device);
  }
  return found;
}

void Watch::look() {
  next_look_ = Clock::now() + kLookAgain;
  const auto attached = attached_images(host_);
  const std::string trouble = attached ? "" : attached.error().to_string();
  if (trouble != last_trouble_ && !attached) log_.error(trouble);
  last_trouble_ = trouble;
  if (!attached) return;
  for (auto& [id, watched] : images_) watched.present = false;
  for (const auto& [image, device] : *attached) look_at(image, device);
  std::erase_if(images_, [](const auto& entry) {
    return !entry.second.present && !entry.second.repair;  // detached
  });
}

void Watch::look_at(const ImageRecord& image, const KernelNbdDevice& device) {
  Watched& watched = images_[image.id];
  watched.image = image;
  watched.device = device;
  watched.present = true;
  look_at_server(watched);
}

// A server that ends without a word of the kernel (all its connections were dead before, or it
// served none) is noticed here, and its descriptor wakes wait().
void Watch::look_at_server(Watched& watched) {
  if (watched.image.is_remote() || watched.server.valid() || watched.repair) return;
  auto server = open_server(host_, watched.image.id);
  if (!server) {
    need_repair(watched, server.error().to_string());
  } else if (*server) {
    watched.server = std::move((*server)->pidfd);
  } else {
    need_repair(watched, "its server is gone");
  }
}

void Watch::need_repair(Watched& watched, std::string reason) {
  if (watched.reason.empty()) watched.reason = std::move(reason);
  if (!watched.repair_at) watched.repair_at = watched.delay.next(Clock::now());
}

// Nothing says which connections live. For those that do, this changes nothing.
void Watch::make_sure_of_all() {
  look();
  for (auto& [id, watched] : images_) need_repair(watched, "");
}

void Watch::begin_repairs() {
  for (auto& [id, watched] : images_) {
    const bool due = watched.wants_repair() && *watched.repair_at <= Clock::now();
    if (!due || repairs() >= kMostRepairs) continue;
    watched.repair_at.reset();
    auto repair = Repair::begin(host_, watched.image, watched.device);
    if (repair) {
      watched.repair.emplace(*std::move(repair));
    } else {
      log_.error(repair.error().to_string());
      watched.delay.ended(Clock::now());
      need_repair(watched, "");
    }
  }
}

void Watch::end_repair(Watched& watched) {
  const auto result = watched.repair->finish();
  const milliseconds took = watched.repair->age();
  watched.repair.reset();
  // One that only made sure says nothing of how long the last one lasted.
  if (!result || !watched.reason.empty()) watched.delay.ended(Clock::now());
  watched.server.reset();
  const std::string name = fmt::format("{} ({})", watched.device.path, watched.image.location);
  if (result) {
    watched.present = *result;  // else the next look forgets it
    if (*result && !watched.reason.empty()) {
      log_.warn(fmt::format("{}: {}; reconnected in {} ms", name, watched.reason, took.count()));
    }
    watched.reason.clear();
    watched.failures = 0;
    if (watched.present) look_at_server(watched);
    return;
  }
  // Not every one of many attempts that fail alike: the 1st, 2nd, 4th, 8th.
  if (std::has_single_bit(++watched.failures)) {
    log_.error(fmt::format("{}: attempt {} to reconnect: {}", name, watched.failures,
                           result.error().to_string()));
  }
  if (once_) {
    ++failed_;
    watched.repair_at.reset();
  } else {
    need_repair(watched, "a reconnection failed");
  }
}

void Watch::hear_events() {
  const auto indexes = events_.take();
  if (!indexes) {
    log_.warn(fmt::format("looking at all devices: {}", indexes.error().to_string()));
    make_sure_of_all();
    return;
  }
  if (indexes->empty()) return;
  look();
  for (auto& [id, watched] : images_) {
    const bool lost =
        std::find(indexes->begin(), indexes->end(), watched.device.index) != indexes->end();
    if (lost && watched.present) need_repair(watched, "it lost a connection");
  }
}

size_t Watch::repairs() const {
  return static_cast<size_t>(std::count_if(images_.begin(), images_.end(), [](const auto& entry) {
    return entry.second.repair.has_value();
  }));
}

bool Watch::is_idle() const {
  return std::none_of(images_.begin(), images_.end(), [](const auto& entry) {
    return entry.second.repair || entry.second.wants_repair();
  });
}

int Watch::wait_milliseconds() const {
  Clock::time_point until = next_look_;
  if (repairs() < kMostRepairs) {
    for (const auto& [id, watched] : images_) {
      if (watched.wants_repair()) until = std::min(until, *watched.repair_at);
    }
  }
  const auto left = std::chrono::ceil<milliseconds>(until - Clock::now());
  return static_cast<int>(std::max<milliseconds::rep>(0, left.count()));
}

bool Watch::wait() {
  const auto wanted = [](int fd) { return pollfd{.fd = fd, .events = POLLIN, .revents = 0}; };
  std::vector<pollfd> fds{wanted(signals_.get()), wanted(events_.fd())};
  std::vector<Watched*> owners;
  for (auto& [id, watched] : images_) {
    fds.push_back(wanted(watched.repair ? watched.repair->fd() : -1));
    fds.push_back(wanted(watched.server.get()));
    owners.push_back(&watched);
  }
  if (::poll(fds.data(), fds.size(), wait_milliseconds()) < 0) return errno == EINTR;
  if (fds[0].revents != 0) return false;
  bool server_ended = false;
  for (size_t i = 0; i < owners.size(); ++i) {
    if (fds[2 + 2 * i + 1].revents != 0) {
      owners[i]->server.reset();
      server_ended = true;
    }
    if (fds[2 + 2 * i].revents != 0) end_repair(*owners[i]);
  }
  if (fds[1].revents != 0) hear_events();
  if (server_ended || Clock::now() >= next_look_) look();
  return true;
}

// A repair that has begun would end with this process, half done.
void Watch::finish_repairs() {
  const auto end = Clock::now() + kFinishRepairs;
  for (auto& [id, watched] : images_) {
    if (!watched.repair) continue;
    const auto left = std::chrono::ceil<milliseconds>(end - Clock::now());
    if (has_ended(watched.repair->fd(), left)) end_repair(watched);
  }
}

Result<void> Watch::run() {
  make_sure_of_all();
  while (true) {
    begin_repairs();
    if (once_ && is_idle()) break;
    if (!wait()) {
      finish_repairs();
      return {};
    }
  }
  if (!last_trouble_.empty()) return fail(ErrorKind::kIo, "could not look at the devices");
  if (failed_ == 0) return {};
  return fail(ErrorKind::kIo, "{} of {} images could not be reconnected", failed_, images_.size());
}

Result<UniqueFd> hear_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  UniqueFd fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return fail_errno(errno, "cannot wait for signals");
  return fd;
}

}  // namespace

Result<void> watch_command(const Host& host, const WatchArguments& arguments) {
  UniqueFd signals = TRY(hear_signals());
  // Before the first look: what dies in between is heard.
  KernelNbdEvents events = TRY(KernelNbdEvents::open());
  return Watch(host, std::move(events), std::move(signals), arguments.once).run();
}

}  // namespace underlay::thin
