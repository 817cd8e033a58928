#include "tools/thin/device_mapper.h"

#include <libdevmapper.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>

#include "io/block_device_holders.h"

namespace underlay::thin {
namespace {

// udev may hold a device for as long as its rules run.
constexpr auto kRemoveTime = std::chrono::seconds(3);
constexpr auto kRemovePause = std::chrono::milliseconds(50);
constexpr unsigned kLogLevelMask = 7;  // the rest of libdevmapper's level are flags

// What libdevmapper logged while a task ran. Its callback has no argument for a context.
std::string& logged() {
  thread_local std::string text;
  return text;
}

void collect_log(int level, const char*, int, int, const char* format, ...) {
  if ((static_cast<unsigned>(level) & kLogLevelMask) > 3)
    return;  // 3: errors; above: warnings etc.
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (length < 0) return;
  if (!logged().empty()) logged() += "; ";
  logged() += printable(line);
}

// One request to device-mapper. The setters fail only without memory: run() reports that, too.
class Task {
 public:
  explicit Task(int type) {
    dm_log_with_errno_init(&collect_log);
    logged().clear();
    task_.reset(dm_task_create(type));
    good_ = task_ != nullptr;
  }
  Task(int type, const std::string& name) : Task(type) {
    check([&] { return dm_task_set_name(task_.get(), name.c_str()); });
    name_ = name;
  }

  dm_task* get() const { return task_.get(); }

  template <class Setter>
  void check(Setter&& setter) {
    good_ = good_ && setter() != 0;
  }

  void add_targets(const DmTable& table) {
    for (const DmTarget& target : table.targets) {
      check([&] {
        return dm_task_add_target(task_.get(), target.start, target.sectors, target.type.c_str(),
                                  target.params.c_str());
      });
    }
    if (table.read_only) {
      check([&] { return dm_task_set_ro(task_.get()); });
    }
  }

  // `doing`: "create", for the message.
  Result<void> run(const char* doing) {
    const bool done = good_ && dm_task_run(task_.get()) != 0;
    return done ? Result<void>() : failure(doing);
  }

  // For requests after which udev (or libdevmapper) makes or removes nodes: waits for that.
  Result<void> run_with_nodes(const char* doing, uint16_t udev_flags) {
    uint32_t cookie = 0;
    check([&] { return dm_task_set_cookie(task_.get(), &cookie, udev_flags); });
    const auto result = run(doing);
    dm_udev_wait(cookie);
    dm_task_update_nodes();
    return result;
  }

 private:
  struct Destroy {
    void operator()(dm_task* task) const { dm_task_destroy(task); }
  };

  Failure failure(const char* doing) const {
    const int code = task_ == nullptr ? ENOMEM : dm_task_get_errno(task_.get());
    const int known = code == 0 ? EINVAL : code;
    // libdevmapper's lines say more only when it failed before the kernel was asked, or after.
    const bool says_more = logged().find(::strerror(known)) == std::string::npos;
    return fail_errno(known, "device-mapper: {} '{}' failed{} (dmesg may say more)", doing, name_,
                      logged().empty() || !says_more ? "" : ": " + logged());
  }

  std::unique_ptr<dm_task, Destroy> task_;
  std::string name_;
  bool good_ = false;
};

Failure no_device(const std::string& name) {
  return fail(ErrorKind::kNotFound, "there is no device-mapper device '{}'", name);
}

uint16_t udev_flags(bool internal) {
  if (!internal) return 0;
  return DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG | DM_UDEV_DISABLE_DISK_RULES_FLAG |
         DM_UDEV_DISABLE_OTHER_RULES_FLAG;
}

bool is_own(const std::string& uuid) { return uuid.starts_with(kDmUuidPrefix); }

// The device, if it is this program's.
Result<DmInfo> own_device(const std::string& name, const char* doing) {
  auto info = TRY(dm_info(name));
  if (!info) return no_device(name);
  if (!is_own(info->uuid)) {
    return fail(ErrorKind::kDenied,
                "cannot {} {}: it belongs to another program (its device-mapper UUID is '{}', not "
                "{}...)",
                doing, dm_path(name), info->uuid, kDmUuidPrefix);
  }
  return std::move(*info);
}

Result<void> load(const DmTable& table) {
  Task task(DM_DEVICE_RELOAD, table.name);
  task.add_targets(table);
  return task.run("loading a table into");
}

Result<void> suspend(const std::string& name, Flush flush) {
  Task task(DM_DEVICE_SUSPEND, name);
  if (flush == Flush::kNo) {
    task.check([&] { return dm_task_no_flush(task.get()); });
  }
  if (flush != Flush::kYes) {
    task.check([&] { return dm_task_skip_lockfs(task.get()); });
  }
  return task.run("suspending");
}

Result<void> resume(const std::string& name, bool internal) {
  return Task(DM_DEVICE_RESUME, name).run_with_nodes("resuming", udev_flags(internal));
}

// The new table did not become live, or did not start: loads the old one and resumes the device.
Failure back_to(const DmTable& old, Error error) {
  auto back = load(old);
  if (back) back = resume(old.name, old.internal);
  if (!back) {
    error.message += fmt::format(
        "; the table before it could not be resumed either ({}): {} stays suspended, its I/O waits",
        back.error().to_string(), dm_path(old.name));
  }
  return Failure(std::move(error));
}

Result<std::vector<DmTarget>> targets_of(Task& task, const std::string& name) {
  ::dm_info info{};
  if (dm_task_get_info(task.get(), &info) == 0 || info.exists == 0) {
    return no_device(name);
  }
  std::vector<DmTarget> targets;
  void* next = nullptr;
  do {
    DmTarget target;
    char* type = nullptr;
    char* params = nullptr;
    next = dm_get_next_target(task.get(), next, &target.start, &target.sectors, &type, &params);
    if (type == nullptr) break;  // no table
    target.type = type;
    target.params = params == nullptr ? "" : params;
    while (target.params.ends_with(' ')) target.params.pop_back();
    targets.push_back(std::move(target));
  } while (next != nullptr);
  return targets;
}

}  // namespace

Result<void> dm_create(const DmTable& table) {
  assert(is_own(table.uuid));
  auto there = TRY(dm_info(table.name));
  if (there && there->uuid == table.uuid && !there->has_table) {
    // Left by a process that was killed between creating and starting it.
    TRY(dm_remove(table.name));
    there.reset();
  }
  if (there) {
    return fail(ErrorKind::kUsage,
                "cannot create {}: a device-mapper device of that name is there (UUID '{}')",
                dm_path(table.name), there->uuid);
  }
  Task task(DM_DEVICE_CREATE, table.name);
  task.check([&] { return dm_task_set_uuid(task.get(), table.uuid.c_str()); });
  task.add_targets(table);
  // Creates, loads and resumes; libdevmapper removes the device when loading or resuming fails.
  TRY(task.run_with_nodes("creating", udev_flags(table.internal)));
  if (::access(dm_path(table.name).c_str(), F_OK) != 0) {
    const int code = errno;
    Error error =
        fail_errno(code, "created '{}', but {} did not appear", table.name, dm_path(table.name))
            .value();
    if (const auto removed = dm_remove(table.name); !removed) {
      error.message += "; removing it failed too: " + removed.error().to_string();
    }
    return Failure(std::move(error));
  }
  return {};
}

Result<void> dm_reload(const DmTable& table, Flush flush) {
  const DmInfo before = TRY(own_device(table.name, "reload"));
  std::vector<DmTarget> targets = TRY(dm_table(table.name));
  const DmTable old{.name = table.name,
                    .uuid = before.uuid,
                    .targets = std::move(targets),
                    .read_only = before.read_only,
                    .internal = table.internal};
  TRY(load(table));
  if (auto suspended = suspend(table.name, flush); !suspended) {
    Error error = std::move(suspended).error();
    if (const auto cleared = dm_clear(table.name); !cleared) {
      error.message += "; " + cleared.error().to_string();
    }
    // Harmless when it is not suspended, as it should be.
    if (const auto resumed = resume(table.name, table.internal); !resumed) {
      error.message += "; " + resumed.error().to_string();
    }
    return Failure(std::move(error));
  }
  if (auto resumed = resume(table.name, table.internal); !resumed) {
    return back_to(old, std::move(resumed).error());
  }
  return {};
}

Result<void> dm_suspend(const std::string& name, Flush flush) {
  TRY(own_device(name, "suspend"));
  return suspend(name, flush);
}

Result<void> dm_resume(const std::string& name) {
  TRY(own_device(name, "resume"));
  // Without a new table, the kernel tells udev nothing that its rules would have to know.
  return resume(name, false);
}

Result<void> dm_clear(const std::string& name) {
  TRY(own_device(name, "clear"));
  return Task(DM_DEVICE_CLEAR, name).run("clearing the loaded table of");
}

Result<void> dm_remove(const std::string& name) {
  TRY(own_device(name, "remove"));
  const auto last = std::chrono::steady_clock::now() + kRemoveTime;
  for (;;) {
    auto removed = Task(DM_DEVICE_REMOVE, name).run_with_nodes("removing", 0);
    if (removed) return {};
    if (removed.error().sys_errno != EBUSY) return Failure(std::move(removed).error());
    const auto holders = TRY(block_device_holders(dm_path(name)));
    if (std::chrono::steady_clock::now() >= last) {
      return fail(ErrorKind::kUsage, "cannot remove {}: it is in use by {}", dm_path(name),
                  holders.empty() ? "something that cannot be seen from here (another namespace?)"
                                  : join_holders(holders));
    }
    std::this_thread::sleep_for(kRemovePause);
  }
}

Result<void> dm_message(const std::string& name, const std::string& message) {
  TRY(own_device(name, "send a message to"));
  Task task(DM_DEVICE_TARGET_MSG, name);
  task.check([&] { return dm_task_set_sector(task.get(), 0); });
  task.check([&] { return dm_task_set_message(task.get(), message.c_str()); });
  return task.run(("sending '" + message + "' to").c_str());
}

Result<std::optional<DmInfo>> dm_info(const std::string& name) {
  Task task(DM_DEVICE_INFO, name);
  TRY(task.run("looking at"));
  ::dm_info info{};
  if (dm_task_get_info(task.get(), &info) == 0) {
    return fail(ErrorKind::kIo, "device-mapper: no information on '{}'", name);
  }
  if (info.exists == 0) return std::optional<DmInfo>();
  const char* const uuid = dm_task_get_uuid(task.get());
  return std::optional<DmInfo>(DmInfo{.name = name,
                                      .uuid = uuid == nullptr ? "" : uuid,
                                      .major = info.major,
                                      .minor = info.minor,
                                      .open_count = info.open_count,
                                      .suspended = info.suspended != 0,
                                      .read_only = info.read_only != 0,
                                      .has_table = info.live_table != 0,
                                      .has_inactive_table = info.inactive_table != 0});
}

Result<std::vector<DmTarget>> dm_table(const std::string& name) {
  Task task(DM_DEVICE_TABLE, name);
  if (auto done = task.run("reading the table of"); !done) {
    return done.error().sys_errno == ENXIO ? no_device(name) : Failure(std::move(done).error());
  }
  return targets_of(task, name);
}

Result<std::vector<DmTarget>> dm_status(const std::string& name, bool wait) {
  Task task(DM_DEVICE_STATUS, name);
  if (!wait) {
    task.check([&] { return dm_task_no_flush(task.get()); });
  }
  TRY(task.run("reading the status of"));
  return targets_of(task, name);
}

Result<std::vector<std::string>> dm_list() {
  Task task(DM_DEVICE_LIST);
  TRY(task.run("listing the devices of"));
  std::vector<std::string> all;
  // A list of entries, each with the distance to the next; the first has no device when empty.
  const dm_names* entry = dm_task_get_names(task.get());
  while (entry != nullptr && entry->dev != 0) {
    all.emplace_back(entry->name);
    if (entry->next == 0) break;
    entry = reinterpret_cast<const dm_names*>(reinterpret_cast<const char*>(entry) + entry->next);
  }
  std::vector<std::string> own;
  for (std::string& name : all) {
    const auto info = TRY(dm_info(name));
    if (info && is_own(info->uuid)) own.push_back(std::move(name));
  }
  return own;
}

Result<void> dm_check_targets(const std::vector<std::string>& types) {
  if (const auto version = Task(DM_DEVICE_VERSION).run("asking the version of"); !version) {
    return fail(ErrorKind::kUnsupported,
                "the kernel does not answer for device-mapper ({}): load its module ('modprobe "
                "dm_mod'), as root",
                version.error().to_string());
  }
  for (const std::string& type : types) {
    // The kernel loads the target's module when it is asked for its version.
    if (!Task(DM_DEVICE_GET_TARGET_VERSION, type).run("asking for the target")) {
      return fail(ErrorKind::kUnsupported,
                  "the kernel has no device-mapper target '{}': load its module ('modprobe "
                  "dm-{}'), or use a kernel that has it",
                  type, type);
    }
  }
  return {};
}

std::string dm_path(const std::string& name) { return "/dev/mapper/" + name; }

std::string table_text(const std::vector<DmTarget>& targets) {
  std::string text;
  for (const DmTarget& target : targets) {
    if (!text.empty()) text += '\n';
    text += fmt::format("{} {} {}", target.start, target.sectors, target.type);
    if (!target.params.empty()) text += " " + target.params;
  }
  return text;
}

}  // namespace underlay::thin
