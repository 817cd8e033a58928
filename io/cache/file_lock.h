// Locks between processes on ranges of a file (F_OFD_SETLK): the kernel gives them back when their
// owner dies.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <utility>

namespace underlay {

// One open file description has one lock on a byte, whichever thread asked for it: threads of a
// process need a mutex of their own. Owned by one thread.
class FileLock {
 public:
  FileLock() = default;  // holds nothing
  // Holds [start, start + length) of `fd` against other processes, or nothing when that could not
  // be had within `limit`: somebody else has it for longer, or the file system has no locks. Looks
  // again and again instead of sleeping in the kernel, where a process that was stopped would hold
  // up everybody. `fd` outlives the lock.
  static FileLock take(int fd, off_t start, off_t length, std::chrono::milliseconds limit);
  FileLock(FileLock&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), start_(other.start_), length_(other.length_) {}
  FileLock& operator=(FileLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(start_, other.start_);
    std::swap(length_, other.length_);
    return *this;
  }
  ~FileLock();

  bool held() const { return fd_ >= 0; }

 private:
  FileLock(int fd, off_t start, off_t length) : fd_(fd), start_(start), length_(length) {}

  int fd_ = -1;
  off_t start_ = 0;
  off_t length_ = 0;
};

}  // namespace underlay
