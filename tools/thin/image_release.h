// What is left of an image when no volume uses it any more.
#pragma once

#include <string>
#include <vector>

#include "io/error.h"
#include "tools/thin/host.h"
#include "tools/thin/registry_store.h"

namespace underlay::thin {

// Steps "release-origin" (which takes down origin and attachment unless an active volume uses them)
// and "forget-image" (unless a volume lies on the image, or it is to be kept). What is to be done
// is found when they run. No undo. REQUIRES: the image is in the registry.
std::vector<Step> release_image_steps(const Host& host, RegistryStore& store,
                                      const std::string& image_id);

// Images that no volume lies on and that nobody attached by name: what an interrupted command left.
std::vector<std::string> unused_images(const Registry& registry);

}  // namespace underlay::thin
