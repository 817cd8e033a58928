#include "server/receive_buffers.h"

#include <sys/mman.h>

#include "server/limits.h"

namespace underlay {
namespace {

constexpr size_t kKept = 16;

}  // namespace

ReceiveBuffers::~ReceiveBuffers() {
  for (std::byte* memory : kept_) ::munmap(memory, limits::kReceiveBuffer);
}

ReceiveBuffers::Memory ReceiveBuffers::take() {
  if (!kept_.empty()) {
    std::byte* memory = kept_.back();
    kept_.pop_back();
    return Memory(memory, GiveBack{this});
  }
  // Not from the heap, where what lives on between such buffers would keep their pages.
  void* memory = ::mmap(nullptr, limits::kReceiveBuffer, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return Memory(nullptr, GiveBack{this});
  return Memory(static_cast<std::byte*>(memory), GiveBack{this});
}

void ReceiveBuffers::release(std::byte* memory) {
  if (kept_.size() < kKept) {
    kept_.push_back(memory);
  } else {
    ::munmap(memory, limits::kReceiveBuffer);
  }
}

}  // namespace underlay
