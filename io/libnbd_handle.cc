#include "io/libnbd_handle.h"

#include <algorithm>
#include <cerrno>
#include <limits>

namespace underlay {

Failure libnbd_failure(std::string_view doing) {
  const ErrorKind kind = ::nbd_get_errno() == ENOENT ? ErrorKind::kNotFound : ErrorKind::kIo;
  const char* reason = ::nbd_get_error();
  return fail(kind, "{}: {}", doing, reason == nullptr ? "unknown error of libnbd" : reason);
}

Result<void> begin_connecting(nbd_handle* handle, const std::string& uri) {
  const bool tls = uri.starts_with("nbds");
  if (::nbd_set_uri_allow_transports(
          handle, LIBNBD_ALLOW_TRANSPORT_TCP | LIBNBD_ALLOW_TRANSPORT_UNIX) != 0 ||
      ::nbd_set_uri_allow_tls(handle, tls ? LIBNBD_TLS_REQUIRE : LIBNBD_TLS_DISABLE) != 0 ||
      ::nbd_set_uri_allow_local_file(handle, tls) != 0 ||
      ::nbd_aio_connect_uri(handle, uri.c_str()) != 0) {
    return libnbd_failure("cannot connect");
  }
  return {};
}

Result<void> finish_connecting(nbd_handle* handle, std::chrono::milliseconds limit) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  while (::nbd_aio_is_connecting(handle) == 1) {
    const auto spent = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
    if (spent >= limit) {
      return fail(ErrorKind::kIo, "cannot connect: no answer within {} ms", limit.count());
    }
    constexpr auto kLongest = std::chrono::milliseconds(std::numeric_limits<int>::max());
    const auto wait = std::min(limit - spent, kLongest);
    if (::nbd_poll(handle, static_cast<int>(wait.count())) < 0) {
      return libnbd_failure("cannot connect");
    }
  }
  if (::nbd_aio_is_ready(handle) != 1) return libnbd_failure("cannot connect");
  return {};
}

}  // namespace underlay
