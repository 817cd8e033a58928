// QEMU's image locking, as a reader takes part in it: a program that writes to an image and one
// that serves it learn of each other before they mix two contents.
//
// Bytes of the file stand for permissions. A shared lock on byte 100 + P says that its holder uses
// permission P, one on byte 200 + P that it lets nobody else use P (QEMU, block/file-posix.c,
// RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE; block.h, BLK_PERM_*). Nothing is written to the file.
#pragma once

#include <cstdint>
#include <string>

#include "io/error.h"

namespace underlay {

enum class FileSharing : uint8_t {
  kNoWriter,   // refuse a file that is being written, and keep QEMU from beginning to
  kAnyWriter,  // --force-share: no locks, as qemu-img -U
};

// Locks the open file for reading, until its last descriptor is closed. Does nothing where the file
// system has no locks. Fails with kDenied when another process has it open for writing, or lets
// nobody read it. Never waits.
Result<void> lock_for_reading(int fd, const std::string& name);

// As somebody asks who wants to replace the open file: fails with kDenied when another process has
// it open as an image, to read it or to write to it. Takes no lock. Never waits.
Result<void> check_unused(int fd, const std::string& name);

}  // namespace underlay
