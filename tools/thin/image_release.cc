#include "tools/thin/image_release.h"

#include <algorithm>

#include "tools/thin/activation.h"
#include "tools/thin/image_choice.h"

namespace underlay::thin {

std::vector<Step> release_image_steps(const Host& host, RegistryStore& store,
                                      const std::string& image_id) {
  std::vector<Step> steps = release_origin_steps(host, store.get(), image_id, /*except=*/"");
  append_steps(steps, forget_image_steps(store, image_id));
  return steps;
}

std::vector<std::string> unused_images(const Registry& registry) {
  std::vector<std::string> unused;
  for (const ImageRecord& image : registry.images) {
    const bool used = std::any_of(registry.volumes.begin(), registry.volumes.end(),
                                  [&](const VolumeRecord& one) { return one.image == image.id; });
    if (!used && !image.keep) unused.push_back(image.id);
  }
  return unused;
}

}  // namespace underlay::thin
