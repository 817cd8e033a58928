#include "tools/thin/attach_commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/thin/attachment.h"
#include "tools/thin/output.h"
#include "tools/thin/server_process.h"
#include "tools/thin/transaction.h"

namespace underlay::thin {
namespace {

Result<void> set_keep(RegistryStore& store, const std::string& id, bool keep) {
  Registry next = store.get();
  ImageRecord* image = next.image(id);
  if (image == nullptr || image->keep == keep) return {};
  image->keep = keep;
  return store.write(std::move(next));
}

// Durable before the kernel hears of the image: a crash never leaves a device that nobody knows.
std::vector<Step> keep_steps(RegistryStore& store, ChosenImage& chosen) {
  const bool known = !chosen.is_new && chosen.record.keep;
  chosen.record.keep = true;
  if (chosen.is_new) return record_image_steps(store, chosen);
  if (known) return {};
  Step step;
  step.name = "keep-image";
  step.words = fmt::format("# registry: image {} stays attached without volumes", chosen.record.id);
  step.run = [&store, id = chosen.record.id] { return set_keep(store, id, true); };
  step.undo = [&store, id = chosen.record.id] { return set_keep(store, id, false); };
  return {step};
}

Result<void> report_attachment(const Host& host, const ImageRecord& image) {
  const auto device = TRY(find_attachment(image));
  if (!device) {
    return in_file(fail(ErrorKind::kIo, "was detached by another program meanwhile"),
                   image.location);
  }
  if (!host.json) return report_device(host, device->path);
  const nlohmann::ordered_json document{{"version", 1},
                                        {"device", device->path},
                                        {"id", image.id},
                                        {"size", image.size},
                                        {"format", image.format}};
  print_json(document);
  return {};
}

Step forget_step(RegistryStore& store, const ImageRecord& image) {
  Step step;
  step.name = "forget-image";
  step.words = fmt::format("# registry: image {} is not attached by name any more", image.id);
  step.run = [&store, id = image.id]() -> Result<void> {
    if (has_volumes(store.get(), id)) return set_keep(store, id, false);
    Registry next = store.get();
    std::erase_if(next.images, [&](const ImageRecord& record) { return record.id == id; });
    return store.write(std::move(next));
  };
  return step;
}

}  // namespace

Result<void> attach_command(const Host& host, const AttachArguments& arguments) {
  RegistryStore store = TRY(open_registry(host));
  ChosenImage chosen = TRY(choose_image(store.get(), arguments.image));
  std::vector<Step> steps = keep_steps(store, chosen);
  append_steps(steps, TRY(attach_steps(host, chosen.record)));
  TRY(perform(host, steps));
  return host.dry_run ? Result<void>{} : report_attachment(host, chosen.record);
}

Result<void> detach_command(const Host& host, const DetachArguments& arguments) {
  RegistryStore store = TRY(open_registry(host));
  const ImageRecord image = TRY(find_image(store.get(), arguments.image));
  const bool attached = TRY(find_attachment(image)) || TRY(running_server(host, image.id));
  if (!attached && !image.keep) {
    return fail(ErrorKind::kNotFound, "{} is not attached", image.location);
  }
  std::vector<Step> steps = TRY(detach_steps(host, image));
  steps.push_back(forget_step(store, image));
  return perform(host, steps);
}

}  // namespace underlay::thin
