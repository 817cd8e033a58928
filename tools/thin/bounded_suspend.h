// Suspending a volume without leaving its guest waiting for a request that hangs.
#pragma once

#include <chrono>
#include <string>

#include "io/error.h"
#include "tools/thin/suspend_guard.h"

namespace underlay::thin {

// A device that is to be suspended must first finish the requests that are under way, and holds all
// others back until then. When one of them waits for a server that is dead, that takes minutes.
inline constexpr std::chrono::milliseconds kSuspendLimit{2000};

// Suspends the device, once its requests have ended (Flush::kDrain). When they do not within
// `limit`, gives up: the device goes on as before, and the error says what to look at.
// Uses SIGALRM. REQUIRES: one thread.
Result<SuspendGuard> suspend_within(const std::string& name, std::chrono::milliseconds limit);

}  // namespace underlay::thin
