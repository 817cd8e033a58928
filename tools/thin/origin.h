// The origin device of an image: /dev/mapper/underlay-ID, the external origin of all volumes on it.
// A table over the image's files (loop devices, read-only), zeros, and the nbd device, or over the
// nbd device alone.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/error.h"
#include "tools/thin/host.h"
#include "tools/thin/image_plan.h"
#include "tools/thin/registry.h"
#include "tools/thin/steps.h"

namespace underlay::thin {

std::string origin_name(const std::string& image_id);  // "underlay-ID"

// Steps that make the origin device, and attach the image first when the table needs the server.
// Nothing to do (no steps) when it is there. `plan` lives until the steps have run.
Result<std::vector<Step>> origin_steps(const Host& host, const ImageRecord& image,
                                       std::shared_ptr<const ImagePlan> plan);
// Takes it down, and the attachment with it unless the record says keep. Refuses when in use.
Result<std::vector<Step>> remove_origin_steps(const Host& host, const ImageRecord& image);

// What an active origin's table says.
struct OriginShare {
  uint64_t file_sectors = 0, zero_sectors = 0, server_sectors = 0;
};
Result<std::optional<OriginShare>> origin_share(const std::string& image_id);

}  // namespace underlay::thin
