// An image behind a kernel nbd device: server, connections, device.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/error.h"
#include "io/kernel_nbd.h"
#include "tools/thin/host.h"
#include "tools/thin/registry.h"
#include "tools/thin/steps.h"

namespace underlay::thin {

// The kernel's device for the image, found by its backend identifier; nullopt: not attached.
Result<std::optional<KernelNbdDevice>> find_attachment(const ImageRecord& image);

// Steps: start-server (not for a URI), dial, connect, first-read. When the image is attached
// already: none.
Result<std::vector<Step>> attach_steps(const Host& host, const ImageRecord& image);
// Steps: disconnect, stop-server. Refuses, naming them, while anything holds the device.
Result<std::vector<Step>> detach_steps(const Host& host, const ImageRecord& image);

// Gives a device whose connections died new ones: starts the server again when it is gone, dials,
// reconfigures. Harmless when the connections live.
Result<void> reconnect(const Host& host, const ImageRecord& image, const KernelNbdDevice& device);

}  // namespace underlay::thin
