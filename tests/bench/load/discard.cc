#include "tests/bench/load/discard.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "tests/bench/load/connection.h"

namespace underlay::bench {
namespace {

// As much as any user may ask for: large replies come in few pieces.
constexpr int kPipeBytes = 1 << 20;

Result<size_t> splice_some(int from, int to, size_t most) {
  for (;;) {
    const ssize_t moved = ::splice(from, nullptr, to, nullptr, most, 0);
    if (moved > 0) return static_cast<size_t>(moved);
    if (moved == 0) return fail(ErrorKind::kTruncated, "the server has hung up");
    if (errno == EAGAIN) return fail(ErrorKind::kIo, "no reply within {} s", kPatienceSeconds);
    if (errno != EINTR) return fail_errno(errno, "cannot splice what the server has sent");
  }
}

}  // namespace

Result<Discard> Discard::open() {
  std::array<int, 2> ends{-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe");
  UniqueFd out(ends[0]);
  UniqueFd in(ends[1]);
  if (::fcntl(in.get(), F_SETPIPE_SZ, kPipeBytes) < 0) {
    return fail_errno(errno, "cannot make a pipe of {} bytes", kPipeBytes);
  }
  UniqueFd nowhere(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  if (!nowhere.valid()) return in_file(fail_errno(errno, "cannot be opened"), "/dev/null");
  return Discard(std::move(out), std::move(in), std::move(nowhere));
}

Result<size_t> Discard::drop(int socket, size_t most) {
  const size_t taken = TRY(splice_some(socket, in_.get(), most));
  for (size_t left = taken; left > 0;) left -= TRY(splice_some(out_.get(), nowhere_.get(), left));
  return taken;
}

}  // namespace underlay::bench
