// Drops what a socket has received without looking at it: pages go from the socket into a pipe and
// from there to /dev/null, and are never copied into this process.
#pragma once

#include <cstddef>

#include "io/error.h"
#include "io/unique_fd.h"

namespace underlay::bench {

// One for any number of sockets: its pipe is empty between calls. Not thread-safe.
class Discard {
 public:
  static Result<Discard> open();

  // Drops at least one byte and at most `most` (> 0); returns how many. Waits for the first one as
  // long as the socket's receive timeout allows.
  Result<size_t> drop(int socket, size_t most);

 private:
  Discard(UniqueFd out, UniqueFd in, UniqueFd nowhere)
      : out_(std::move(out)), in_(std::move(in)), nowhere_(std::move(nowhere)) {}

  UniqueFd out_;  // of the pipe, as `in_` is
  UniqueFd in_;
  UniqueFd nowhere_;
};

}  // namespace underlay::bench
