#include "tools/thin/origin.h"

#include <fcntl.h>
#include <linux/major.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>

#include "io/block_device_holders.h"
#include "tools/thin/attachment.h"
#include "tools/thin/block_device.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/loop_device.h"
#include "tools/thin/shell_words.h"

namespace underlay::thin {
namespace {

namespace fs = std::filesystem;

constexpr size_t kTargetsInWords = 8;

std::string origin_uuid(const std::string& image_id) {
  return std::string(kDmUuidPrefix) + "origin-" + image_id;
}

DmTable origin_device(const ImageRecord& image, std::vector<DmTarget> targets) {
  return {.name = origin_name(image.id),
          .uuid = origin_uuid(image.id),
          .targets = std::move(targets),
          .read_only = true,
          .internal = true};
}

std::string reason_path(const Host& host, const std::string& image_id) {
  return host.run_dir + "/" + image_id + kReasonSuffix;
}

Result<void> keep_reason(const Host& host, const std::string& image_id, const std::string& reason) {
  const std::string path = reason_path(host, image_id);
  std::error_code error;
  fs::create_directories(host.run_dir, error);
  if (error) return in_file(fail_errno(error.value(), "cannot make the folder"), host.run_dir);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << reason;
  file.close();
  if (!file) return in_file(fail(ErrorKind::kIo, "cannot be written"), path);
  return {};
}

Result<void> forget_reason(const Host& host, const std::string& image_id) {
  std::error_code error;
  fs::remove(reason_path(host, image_id), error);
  if (error)
    return in_file(fail_errno(error.value(), "cannot remove"), reason_path(host, image_id));
  return {};
}

// Why nothing of the image is mapped directly, "" when something is.
std::string why_not_direct(const ImageRecord& image, const ImagePlan* plan) {
  if (image.is_remote()) return "the image is another server's";
  if (image.direct == DirectMode::kNever) return "--direct never";
  if (plan == nullptr) return "its files were not looked at";
  if (!plan->direct || plan->file_sectors + plan->zero_sectors == 0) return plan->reason;
  return "";
}

// ---- making it

// What the step that makes the device works on.
struct Making {
  Host host;
  ImageRecord image;
  std::shared_ptr<const ImagePlan> plan;
  std::string not_direct;  // why_not_direct()
  bool attached = false;   // by this step, because the direct table could not be made after all
};

Result<std::string> server_number(const ImageRecord& image) {
  const auto device = TRY(find_attachment(image));
  if (!device) return in_file(fail(ErrorKind::kNotFound, "is not attached"), image.location);
  if (device->size_bytes != image.size) {
    return in_file(
        fail(ErrorKind::kIo, "has {} bytes, not the image's {}", device->size_bytes, image.size),
        device->path);
  }
  return block_device_number(device->path);
}

// A plan's files as devices. Loop devices live as long as this does, or a table holds them.
struct FileDevices {
  std::vector<std::string> numbers;
  std::vector<LoopDevice> loops;
};

Result<FileDevices> open_files(const ImagePlan& plan) {
  FileDevices devices;
  for (size_t i = 0; i < plan.descriptors.size(); ++i) {
    const int fd = plan.descriptors[i].get();
    struct stat status;
    if (::fstat(fd, &status) != 0) return in_file(fail_errno(errno, "cannot stat"), plan.paths[i]);
    if (S_ISBLK(status.st_mode)) {
      devices.numbers.push_back(
          fmt::format("{}:{}", ::major(status.st_rdev), ::minor(status.st_rdev)));
      continue;
    }
    devices.loops.push_back(TRY(open_loop_device(fd, plan.paths[i], true)));
    devices.numbers.push_back(devices.loops.back().number);
  }
  return devices;
}

Result<void> make_direct(const Making& making) {
  const ImagePlan& plan = *making.plan;
  const FileDevices files = TRY(open_files(plan));
  std::string server;
  if (plan.server_sectors > 0) server = TRY(server_number(making.image));
  TRY(keep_reason(making.host, making.image.id, plan.reason));
  return dm_create(origin_device(making.image, direct_table(plan.runs, files.numbers, server)));
}

Result<void> make_over_server(Making& making, const std::string& reason) {
  if (!TRY(find_attachment(making.image))) {
    const auto steps = TRY(attach_steps(making.host, making.image));
    TRY(run_steps(steps));
    making.attached = true;
  }
  const std::string server = TRY(server_number(making.image));
  TRY(keep_reason(making.host, making.image.id, reason));
  return dm_create(
      origin_device(making.image, server_table(making.image.size / Disk::kSectorBytes, server)));
}

Result<void> detach(const Host& host, const ImageRecord& image) {
  const auto steps = TRY(detach_steps(host, image));
  return run_steps(steps);
}

Result<void> make_origin(Making& making) {
  std::string reason = making.not_direct;
  if (reason.empty()) {
    auto made = make_direct(making);
    if (made || making.image.direct == DirectMode::kAlways) return made;
    reason = made.error().to_string();
  }
  auto made = make_over_server(making, reason);
  if (!made && making.attached) {
    if (const auto undone = detach(making.host, making.image); !undone) {
      made.error().message += "; detaching failed too: " + undone.error().to_string();
    }
  }
  return made;
}

Result<void> unmake_origin(const Making& making) {
  TRY(dm_remove(origin_name(making.image.id)));
  TRY(forget_reason(making.host, making.image.id));
  return making.attached ? detach(making.host, making.image) : Result<void>();
}

// On one line, as dmsetup takes it. The devices get their numbers when they are made: LOOP1 and so
// on, and /dev/nbdN, stand for them.
std::string create_words(const Making& making) {
  std::string words;
  std::vector<std::string> files;
  std::vector<DmTarget> targets = server_table(making.image.size / Disk::kSectorBytes, "/dev/nbdN");
  if (making.not_direct.empty()) {
    for (const std::string& path : making.plan->paths) {
      files.push_back(fmt::format("$LOOP{}", files.size() + 1));
      const std::array<std::string, 5> losetup{"losetup", "--find", "--show", "--read-only", path};
      words += fmt::format("LOOP{}=$({}); ", files.size(), shell_words(losetup));
    }
    targets = direct_table(making.plan->runs, files, "/dev/nbdN");
  }
  words += fmt::format("dmsetup create --concise \"{},{},,ro", origin_name(making.image.id),
                       origin_uuid(making.image.id));
  for (size_t i = 0; i < std::min(targets.size(), kTargetsInWords); ++i) {
    words += ',' + table_text({targets[i]});
  }
  words += '"';
  if (targets.size() > kTargetsInWords) {
    words += fmt::format("  # and {} more targets", targets.size() - kTargetsInWords);
  }
  return words;
}

Step create_step(std::shared_ptr<Making> making) {
  Step step;
  step.name = "create-origin";
  step.words = create_words(*making);
  step.run = [making] { return make_origin(*making); };
  step.undo = [making] { return unmake_origin(*making); };
  return step;
}

// An origin that is there already must be whole, and its server the one that is attached.
Result<std::vector<Step>> existing_steps(const Host& host, const ImageRecord& image,
                                         const DmInfo& device) {
  const std::string path = dm_path(device.name);
  if (device.uuid != origin_uuid(image.id)) {
    return in_file(fail(ErrorKind::kUsage, "is not of this program (UUID \"{}\"): remove it first",
                        printable(device.uuid, 80)),
                   path);
  }
  const auto targets = TRY(dm_table(device.name));
  const OriginShare share = TRY(share_of(targets));
  if (share.sectors() != image.size / Disk::kSectorBytes || !device.read_only) {
    return in_file(fail(ErrorKind::kIo,
                        "has {} sectors, and the image {}, or is writable: deactivate what uses "
                        "it, and activate it again",
                        share.sectors(), image.size / Disk::kSectorBytes),
                   path);
  }
  std::vector<Step> steps;
  if (share.server_sectors > 0) {
    const auto server = server_number(image);
    if (!server || *server != share.server) {
      return in_file(fail(ErrorKind::kIo,
                          "reads from the nbd device {}, which is not the image's any more: "
                          "deactivate what uses it, and activate it again",
                          share.server),
                     path);
    }
    steps = TRY(attach_steps(host, image));
  }
  if (device.suspended) {
    Step resume;
    resume.name = "resume-origin";
    resume.words = "dmsetup resume " + device.name;
    resume.run = [name = device.name] { return dm_resume(name); };
    steps.push_back(std::move(resume));
  }
  return steps;
}

// ---- taking it down

// What is needed to put it back.
struct Removing {
  DmTable table;
  std::vector<UniqueFd> loops;  // would go with the table
  std::string reason;
};

Result<UniqueFd> hold_loop(const std::string& number) {
  const std::string path = TRY(block_device_path(number));
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return in_file(fail_errno(errno, "cannot open"), path);
  return fd;
}

Result<void> take_down(const Host& host, const ImageRecord& image, Removing& removing) {
  const std::string name = origin_name(image.id);
  removing.table = origin_device(image, TRY(dm_table(name)));
  removing.reason = origin_reason(host, image.id);
  const OriginShare share = TRY(share_of(removing.table.targets));
  for (const std::string& number : share.files) {
    if (number.starts_with(std::to_string(LOOP_MAJOR) + ":")) {
      removing.loops.push_back(TRY(hold_loop(number)));
    }
  }
  TRY(dm_remove(name));
  return forget_reason(host, image.id);
}

Result<void> put_back(const Host& host, const ImageRecord& image, const Removing& removing) {
  TRY(keep_reason(host, image.id, removing.reason));
  return dm_create(removing.table);
}

Step remove_step(const Host& host, const ImageRecord& image, bool has_table) {
  const auto removing = std::make_shared<Removing>();
  Step step;
  step.name = "remove-origin";
  step.words = "dmsetup remove " + origin_name(image.id);
  if (has_table) {
    step.run = [host, image, removing] { return take_down(host, image, *removing); };
    step.undo = [host, image, removing] { return put_back(host, image, *removing); };
  } else {
    step.run = [name = origin_name(image.id)] { return dm_remove(name); };
  }
  return step;
}

// Its own steps are found when it runs: until then the origin holds the device.
Step detach_step(const Host& host, const ImageRecord& image) {
  Step step;
  step.name = "detach";
  step.words = "underlay-thin detach " + image.id;
  step.run = [host, image] { return detach(host, image); };
  return step;
}

}  // namespace

std::string origin_name(const std::string& image_id) { return "underlay-" + image_id; }

Result<std::vector<Step>> origin_steps(const Host& host, const ImageRecord& image,
                                       std::shared_ptr<const ImagePlan> plan) {
  if (plan) {
    TRY(check_unchanged(image, *plan));
  } else {
    TRY(check_unchanged(image));
  }
  const auto there = TRY(dm_info(origin_name(image.id)));
  // Without a table it is what a process left that was killed: dm_create() replaces it.
  if (there && there->has_table) return existing_steps(host, image, *there);
  auto making = std::make_shared<Making>();
  making->host = host;
  making->image = image;
  making->not_direct = why_not_direct(image, plan.get());
  making->plan = std::move(plan);
  const bool needs_server = !making->not_direct.empty() || making->plan->server_sectors > 0;
  if (image.direct == DirectMode::kAlways && needs_server) {
    const std::string& reason =
        making->not_direct.empty() ? making->plan->reason : making->not_direct;
    return in_file(fail(ErrorKind::kUnsupported,
                        "not all of it can be read without the server (--direct always): {}; "
                        "--direct auto takes what can",
                        reason),
                   image.location);
  }
  std::vector<Step> steps;
  if (needs_server) steps = TRY(attach_steps(host, image));
  steps.push_back(create_step(std::move(making)));
  return steps;
}

Result<std::vector<Step>> remove_origin_steps(const Host& host, const ImageRecord& image) {
  std::vector<Step> steps;
  if (const auto there = TRY(dm_info(origin_name(image.id)))) {
    const std::string path = dm_path(there->name);
    if (there->open_count > 0) {
      const auto holders = TRY(block_device_holders(path));
      if (!holders.empty()) {
        return in_file(fail(ErrorKind::kUsage, "is in use by {}", join_holders(holders)), path);
      }
    }
    steps.push_back(remove_step(host, image, there->has_table));
  }
  if (!image.keep) steps.push_back(detach_step(host, image));
  return steps;
}

Result<std::optional<OriginShare>> origin_share(const std::string& image_id) {
  const auto device = TRY(dm_info(origin_name(image_id)));
  if (!device || !device->has_table) return std::optional<OriginShare>();
  const auto targets = TRY(dm_table(device->name));
  return std::optional(TRY(share_of(targets)));
}

std::string origin_reason(const Host& host, const std::string& image_id) {
  std::ifstream file(reason_path(host, image_id), std::ios::binary);
  std::string reason(1000, '\0');
  file.read(reason.data(), static_cast<std::streamsize>(reason.size()));
  reason.resize(static_cast<size_t>(file.gcount()));
  return printable(reason);
}

}  // namespace underlay::thin
