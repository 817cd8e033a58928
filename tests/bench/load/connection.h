// One connection to an NBD server, from its handshake on.
#pragma once

#include <cstdint>

#include "io/bytes.h"
#include "io/error.h"
#include "io/unique_fd.h"
#include "tests/bench/load/settings.h"

namespace underlay::bench {

// A server that says nothing for so long has failed.
inline constexpr int kPatienceSeconds = 30;

// Simple replies: no structured ones are negotiated.
class Connection {
 public:
  // Connects and enters the export.
  static Result<Connection> open(const Settings& settings);

  int fd() const { return fd_.get(); }
  uint64_t export_size() const { return export_size_; }

  Result<void> send(ByteSpan bytes);
  // At least one byte; waits for it, kPatienceSeconds at most.
  Result<size_t> receive(MutableByteSpan out);

 private:
  explicit Connection(UniqueFd fd) : fd_(std::move(fd)) {}
  Result<void> receive_exactly(MutableByteSpan out);
  // NBD_OPT_EXPORT_NAME.
  Result<void> enter(const std::string& name);

  UniqueFd fd_;
  uint64_t export_size_ = 0;
};

}  // namespace underlay::bench
