// Processes as descriptors. glibc 2.36 declares these without C linkage.
#pragma once

extern "C" {
#include <sys/pidfd.h>
}
