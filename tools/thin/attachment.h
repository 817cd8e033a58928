// An image behind a kernel nbd device: server, connections, device.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/error.h"
#include "io/kernel_nbd.h"
#include "io/nbd_dial.h"
#include "tools/thin/host.h"
#include "tools/thin/registry.h"
#include "tools/thin/steps.h"

namespace underlay::thin {

// The kernel's device for the image, found by its backend identifier; nullopt: not attached.
Result<std::optional<KernelNbdDevice>> find_attachment(const ImageRecord& image);

// Steps: start-server (not for a URI), dial, connect, first-read. When the image is attached
// already: none, or reconnect when its server is gone.
Result<std::vector<Step>> attach_steps(const Host& host, const ImageRecord& image);
// Steps: disconnect, stop-server (not for a URI). Refuses, naming them, while anything holds the
// device.
Result<std::vector<Step>> detach_steps(const Host& host, const ImageRecord& image);

// Gives a device whose connections died new ones: starts the server again when it is gone (refuses
// when the image has changed), dials, reconfigures. Harmless when the connections live. False: the
// device has been disconnected meanwhile. Takes lock_server().
Result<bool> reconnect(const Host& host, const ImageRecord& image, const KernelNbdDevice& device);
// The same with a server that runs. REQUIRES: lock_server() is held.
Result<void> renew_connections(const Host& host, const ImageRecord& image,
                               const KernelNbdDevice& device);

// An export for the kernel has whole 512-byte sectors, and blocks of at most a page.
Result<void> check_for_kernel(const std::string& location, const DialedExport& dialed);
// What answered must be what the record says: its size, and for the record's connections its flags.
Result<void> check_export(const ImageRecord& image, const DialedExport& dialed);

// How long one connection may take to be made.
inline constexpr std::chrono::seconds kDialLimit{10};

}  // namespace underlay::thin
