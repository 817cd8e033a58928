#include "tools/thin/image_choice.h"

#include <algorithm>
#include <filesystem>
#include <thread>

#include "formats/options/chain_options.h"
#include "io/confined_open.h"
#include "io/http/remote_name.h"
#include "io/nbd_dial.h"
#include "tools/thin/attachment.h"
#include "tools/thin/image_location.h"
#include "tools/thin/output.h"
#include "tools/thin/random_id.h"

namespace underlay::thin {
namespace {

constexpr unsigned kLocalRecovery = 5;    // seconds: a server on this host answers or is gone
constexpr unsigned kRemoteRecovery = 30;  // seconds: the network may pause

// The record of the image at `location`. One image has one record, however often it is named.
const ImageRecord* find_known(const Registry& registry, const std::string& location,
                              const ImageChoice& image) {
  for (const ImageRecord& record : registry.images) {
    if (record.location == location && record.backing_format == image.backing_format &&
        (image.format.empty() || record.format == image.format) &&
        (image.parents.empty() || record.parents == image.parents)) {
      return &record;
    }
  }
  return nullptr;
}

Result<ChosenImage> take_known(const ImageRecord& record, const ImageArguments& arguments) {
  if (arguments.direct != DirectMode::kAuto && arguments.direct != record.direct) {
    return fail(ErrorKind::kUsage,
                "{} is attached with another --direct already: leave the option out, or remove "
                "what uses the image first",
                record.location);
  }
  TRY(check_unchanged(record));
  return ChosenImage{record, false, nullptr};
}

Result<void> check_arguments(const ImageArguments& arguments) {
  constexpr unsigned kMostConnections = 64;
  if (arguments.connections == 0 || arguments.connections > kMostConnections) {
    return fail(ErrorKind::kUsage, "--connections {}: from 1 to {}", arguments.connections,
                kMostConnections);
  }
  // The kernel has one queue for each connection, and no more queues than processors.
  const unsigned processors = std::max(1u, std::thread::hardware_concurrency());
  if (arguments.connections > processors) {
    warn(
        fmt::format("--connections {}: the kernel uses at most one for each processor, and there "
                    "are {}",
                    arguments.connections, processors));
  }
  if (arguments.recovery_timeout == 0u) {
    return fail(ErrorKind::kUsage, "--recovery-timeout 0: at least 1 second");
  }
  return {};
}

Result<ImageRecord> new_record(const ImageArguments& arguments, bool remote) {
  ImageRecord record;
  record.id = TRY(random_id());
  record.backend = kBackendPrefix + TRY(random_uuid());
  record.backing_format = arguments.image.backing_format;
  record.allow_paths = arguments.image.allow_paths;
  record.parents = arguments.image.parents;
  record.connections = arguments.connections;
  record.recovery_timeout =
      arguments.recovery_timeout.value_or(remote ? kRemoteRecovery : kLocalRecovery);
  record.dead_timeout = arguments.dead_timeout;
  record.direct = arguments.direct;
  return record;
}

Result<ChosenImage> choose_remote(const Registry& registry, const ImageArguments& arguments) {
  const ImageChoice& image = arguments.image;
  if (!image.format.empty() || !image.backing_format.empty() || !image.allow_paths.empty() ||
      !image.parents.empty() || arguments.direct == DirectMode::kAlways) {
    return fail(
        ErrorKind::kUsage,
        "{}: formats, folders, parents and a direct map are the business of the server there",
        image.location);
  }
  if (const auto* known = find_known(registry, image.location, image)) {
    return ChosenImage{*known, false, nullptr};
  }
  const DialedExport dialed = TRY(dial_nbd(image.location, kDialLimit));
  ChosenImage chosen{TRY(new_record(arguments, true)), true, nullptr};
  chosen.record.location = image.location;
  chosen.record.size = dialed.size_bytes;
  return chosen;
}

// Servers start again at boots, with what the registry has.
Result<void> check_no_secret(const std::string& location) {
  const std::string shown = shown_name(location);
  if (shown == location) return {};
  return in_file(fail(ErrorKind::kUsage,
                      "has a query, a user or a password: an image under a volume needs an address "
                      "that lasts; s3:// with keys in ~/.aws does"),
                 shown);
}

// CHILD=PATH with both paths absolute, for servers that start elsewhere; CHILD may be a name alone.
Result<std::string> resolved_parent(const std::string& text) {
  ParentPath stated = TRY(parse_parent_path("--parent", text));
  TRY(check_no_secret(stated.path));
  if (stated.child.find('/') != std::string::npos) {
    stated.child = TRY(with_resolved_folder(stated.child));
  }
  if (!is_remote_name(stated.path)) stated.path = TRY(with_resolved_folder(stated.path));
  return stated.child + "=" + stated.path;
}

}  // namespace

Result<ChosenImage> choose_image(const Registry& registry, const ImageArguments& arguments) {
  TRY(check_arguments(arguments));
  if (is_nbd_uri(arguments.image.location)) return choose_remote(registry, arguments);

  TRY(check_no_secret(arguments.image.location));
  const bool is_far = is_remote_name(arguments.image.location);
  if (is_far && arguments.direct == DirectMode::kAlways) {
    return in_file(fail(ErrorKind::kUsage, "lies on a server: the kernel cannot read it directly"),
                   arguments.image.location);
  }
  ImageArguments resolved = arguments;
  resolved.image.location = TRY(with_resolved_file(arguments.image.location));
  for (std::string& folder : resolved.image.allow_paths) {
    if (is_remote_name(folder)) continue;
    std::error_code error;
    folder = std::filesystem::canonical(folder, error).string();
    if (error) return fail_errno(error.value(), "--allow-path");
  }
  for (std::string& parent : resolved.image.parents) parent = TRY(resolved_parent(parent));
  if (const auto* known = find_known(registry, resolved.image.location, resolved.image)) {
    return take_known(*known, arguments);
  }
  const auto purpose =
      arguments.direct == DirectMode::kNever || is_far ? PlanFor::kStamps : PlanFor::kDirectMap;
  auto plan = std::make_shared<const ImagePlan>(TRY(plan_image(resolved.image, purpose)));
  // It may be a symbolic link to an image that is known.
  if (const auto* known = find_known(registry, plan->location, resolved.image)) {
    return take_known(*known, arguments);
  }
  for (const std::string& warning : plan->warnings) warn(warning);
  ChosenImage chosen{TRY(new_record(resolved, false)), true, plan};
  chosen.record.location = plan->location;
  chosen.record.format = plan->format;
  chosen.record.size = plan->size;
  chosen.record.files = plan->files;
  return chosen;
}

Result<ImageRecord> find_image(const Registry& registry, const std::string& text) {
  std::string location = text;
  if (!is_nbd_uri(text)) {
    if (const auto resolved = with_resolved_file(text)) location = *resolved;
  }
  const ImageRecord* found = nullptr;
  for (const ImageRecord& image : registry.images) {
    bool matches = image.id == text || image.location == location;
    if (!matches && text.starts_with("/dev/")) {
      const auto device = TRY(find_attachment(image));
      matches = device && device->path == text;
    }
    if (!matches) continue;
    if (found != nullptr) {
      return fail(ErrorKind::kUsage,
                  "{} is attached in more than one way: name one by its id, {} or {}", text,
                  found->id, image.id);
    }
    found = &image;
  }
  if (found == nullptr) return fail(ErrorKind::kNotFound, "{}: no such image is attached", text);
  return *found;
}

Result<std::shared_ptr<const ImagePlan>> plan_known_image(const ImageRecord& image) {
  if (image.is_remote()) return std::shared_ptr<const ImagePlan>();
  const bool is_far = is_remote_name(image.location);
  const auto purpose =
      image.direct == DirectMode::kNever || is_far ? PlanFor::kStamps : PlanFor::kDirectMap;
  auto plan = std::make_shared<const ImagePlan>(TRY(plan_image(choice_of(image), purpose)));
  TRY(check_unchanged(image, *plan));
  return plan;
}

std::vector<Step> record_image_steps(RegistryStore& store, const ChosenImage& chosen) {
  if (!chosen.is_new) return {};
  const ImageRecord& record = chosen.record;
  return {{.name = "record-image",
           .words = fmt::format("# registry: image {} is {}", record.id, record.location),
           .run =
               [&store, record]() {
                 Registry next = store.get();
                 next.images.push_back(record);
                 return store.write(std::move(next));
               },
           .undo =
               [&store, id = record.id]() {
                 Registry next = store.get();
                 std::erase_if(next.images,
                               [&](const ImageRecord& image) { return image.id == id; });
                 return store.write(std::move(next));
               }}};
}

std::vector<Step> forget_image_steps(RegistryStore& store, const std::string& image_id) {
  return {{.name = "forget-image",
           .words = fmt::format("# registry: image {} goes unless something uses it", image_id),
           .run = [&store, image_id]() -> Result<void> {
             Registry next = store.get();
             if (has_volumes(next, image_id)) return {};
             const size_t gone = std::erase_if(next.images, [&](const ImageRecord& image) {
               return image.id == image_id && !image.keep;
             });
             return gone == 0 ? Result<void>{} : store.write(std::move(next));
           },
           .undo = {}}};
}

}  // namespace underlay::thin
