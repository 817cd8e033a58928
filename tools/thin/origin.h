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
#include "tools/thin/origin_table.h"
#include "tools/thin/registry.h"
#include "tools/thin/steps.h"

namespace underlay::thin {

std::string origin_name(const std::string& image_id);  // "underlay-ID"

// Steps that make the origin device, and attach the image first when the table needs the server.
// When the device is there: none, or those that its server needs. Fails when the image is not what
// the record says. `plan` is that of plan_image(); null for a URI. With DirectMode::kAuto an image
// that cannot be mapped directly is read through the server alone, see origin_reason(); with
// kAlways it fails.
Result<std::vector<Step>> origin_steps(const Host& host, const ImageRecord& image,
                                       std::shared_ptr<const ImagePlan> plan);
// Takes it down, and the attachment with it unless the record says keep. Refuses when in use.
Result<std::vector<Step>> remove_origin_steps(const Host& host, const ImageRecord& image);

// Of an active origin, from its table; nullopt: it is not active.
Result<std::optional<OriginShare>> origin_share(const std::string& image_id);

// Why the active origin reads something from the server, "" when nothing or when nobody knows any
// more. For people. Lies in run_dir/ID.reason, because the kernel does not keep it.
inline constexpr const char* kReasonSuffix = ".reason";
std::string origin_reason(const Host& host, const std::string& image_id);

}  // namespace underlay::thin
