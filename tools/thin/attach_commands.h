// attach, detach.
#pragma once

#include <string>

#include "io/error.h"
#include "tools/thin/host.h"
#include "tools/thin/image_choice.h"

namespace underlay::thin {

// Attaches the image and prints its device. An image that is attached already, also by a volume,
// keeps its device and options; it stays attached until detach_command().
struct AttachArguments {
  ImageArguments image;
};
Result<void> attach_command(const Host& host, const AttachArguments& arguments);

// `image`: a path, a URI, an id, or the device. Refuses while anything holds the device. The record
// goes as well, unless volumes lie on the image.
struct DetachArguments {
  std::string image;
};
Result<void> detach_command(const Host& host, const DetachArguments& arguments);

}  // namespace underlay::thin
