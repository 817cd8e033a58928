#include "tools/thin/image_release.h"

#include "tools/thin/image_choice.h"
#include "tools/thin/origin.h"
#include "tools/thin/volume_device.h"

namespace underlay::thin {

std::vector<Step> release_origin_steps(const Host& host, const Registry& registry,
                                       const std::string& image_id) {
  if (image_id.empty()) return {};
  const auto run = [host, registry, image_id]() -> Result<void> {
    if (TRY(image_is_used(registry, image_id))) return {};
    const auto steps = TRY(remove_origin_steps(host, *registry.image(image_id)));
    return run_steps(steps);
  };
  return {{.name = "release-origin",
           .words = fmt::format("dmsetup remove {}; underlay-thin detach {}  # unless used",
                                origin_name(image_id), image_id),
           .run = run,
           .undo = {}}};
}

std::vector<Step> release_image_steps(const Host& host, RegistryStore& store,
                                      const std::string& image_id) {
  if (image_id.empty()) return {};
  std::vector<Step> steps = release_origin_steps(host, store.get(), image_id);
  append_steps(steps, forget_image_steps(store, image_id));
  return steps;
}

std::vector<std::string> unused_images(const Registry& registry) {
  std::vector<std::string> unused;
  for (const ImageRecord& image : registry.images) {
    if (!image.keep && !has_volumes(registry, image.id)) unused.push_back(image.id);
  }
  return unused;
}

}  // namespace underlay::thin
