// Bringing volumes up and down, with the pools and origins below them.
#pragma once

#include <string>
#include <vector>

#include "io/error.h"
#include "tools/thin/host.h"
#include "tools/thin/registry_store.h"

namespace underlay::thin {

struct ActivateArguments {
  std::string name;  // "" = all
  // The image's files may differ from what the registry says; it says the new state from then on.
  bool accept_changed_image = false;
};
// With all: pools first, then each image's origin once, then the volumes; what fails does not stop
// the others, and the command fails in the end.
Result<void> activate_command(const Host& host, const ActivateArguments& arguments);

struct DeactivateArguments {
  std::string name;  // "" = all
};
// With all: pools, too.
Result<void> deactivate_command(const Host& host, const DeactivateArguments& arguments);

// What other commands need of it.

// Activates the pool unless it is active, and finishes or takes back what was interrupted in it.
// Fails when a device of its name is not the pool's, or its transaction id not the registry's.
Result<void> bring_up_pool(const Host& host, RegistryStore& store, const std::string& name);
// Activates the volume, with all that it needs, unless it is active. Prints nothing but the steps
// of a dry run.
Result<void> bring_up_volume(const Host& host, RegistryStore& store, const std::string& name,
                             bool accept_changed_image);
// Steps that make the origin of the image unless it is there; fails when the image has changed.
Result<std::vector<Step>> bring_up_origin_steps(const Host& host, const ImageRecord& image);

}  // namespace underlay::thin
