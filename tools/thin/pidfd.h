// Processes as descriptors, and their end.
#pragma once

// glibc 2.36 declares these without C linkage.
extern "C" {
#include <sys/pidfd.h>
}
#include <sys/types.h>

#include <chrono>

namespace underlay::thin {

// Waits at most `limit` for the end of a process, which need not be a child.
bool has_ended(int pidfd, std::chrono::milliseconds limit);

// Waits for the end of a child; waitpid's status.
int wait_for_end(pid_t child);

}  // namespace underlay::thin
