// What is left of an image when no volume uses it any more.
#pragma once

#include <string>
#include <vector>

#include "io/error.h"
#include "tools/thin/host.h"
#include "tools/thin/registry_store.h"

namespace underlay::thin {

// The step "release-origin", which takes down origin and attachment of the image unless an active
// volume uses them, as is found when it runs. No step for "". No undo.
std::vector<Step> release_origin_steps(const Host& host, const Registry& registry,
                                       const std::string& image_id);
// The same, then "forget-image" (unless a volume lies on the image, or it is to be kept).
std::vector<Step> release_image_steps(const Host& host, RegistryStore& store,
                                      const std::string& image_id);

// Images that no volume lies on and that nobody attached by name: what an interrupted command left.
std::vector<std::string> unused_images(const Registry& registry);

}  // namespace underlay::thin
