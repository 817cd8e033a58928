// From what the operator named to a record: the image that is known already, or a new one.
#pragma once

#include <memory>
#include <string>

#include "io/error.h"
#include "tools/thin/host.h"
#include "tools/thin/image_plan.h"
#include "tools/thin/registry.h"
#include "tools/thin/registry_store.h"

namespace underlay::thin {

// The options of `attach` and `create` that say which image, and how to attach it.
struct ImageArguments {
  ImageChoice image;
  unsigned connections = 1;
  std::optional<unsigned> recovery_timeout;  // seconds; nullopt: 5 for our own server, else 30
  unsigned dead_timeout = 300;               // seconds
  DirectMode direct = DirectMode::kAuto;
};

struct ChosenImage {
  ImageRecord record;
  bool is_new = false;  // not in the registry yet
  // Of a new local image; null for a URI, and for a known image, whose files have been compared
  // with the record instead.
  std::shared_ptr<const ImagePlan> plan;
};

// The record of the image, or a new one: then the image is opened in an unprivileged child, which
// may lead to warnings on standard error, or the URI dialled. Fails when a known image has changed,
// and when `arguments` contradict its record.
Result<ChosenImage> choose_image(const Registry& registry, const ImageArguments& arguments);

// The image that `text` means: an id, the path or URI of one, or the nbd device that it is behind.
// kNotFound when the registry has none.
Result<ImageRecord> find_image(const Registry& registry, const std::string& text);

// The plan of a known image that is to be mapped (again), compared with its record; null for a URI.
Result<std::shared_ptr<const ImagePlan>> plan_known_image(const ImageRecord& image);

// Writes the record durably; undone, it goes again. Nothing to do (no step) unless is_new.
std::vector<Step> record_image_steps(RegistryStore& store, const ChosenImage& chosen);
// Takes the record away, unless volumes use it or it is to be kept.
std::vector<Step> forget_image_steps(RegistryStore& store, const std::string& image_id);

}  // namespace underlay::thin
