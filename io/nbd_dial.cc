#include "io/nbd_dial.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

#include "io/libnbd_handle.h"
#include "io/nbd_tls_dial.h"
#include "io/percent_encoding.h"

namespace underlay {
namespace {

// NBD protocol, "Transmission flags", in the order of their bits. DF is left out: it is about
// structured replies.
struct Flag {
  unsigned bit;
  int (*is_set)(nbd_handle*);
};
constexpr std::array kFlags = {
    Flag{1, ::nbd_is_read_only},   Flag{2, ::nbd_can_flush},  Flag{3, ::nbd_can_fua},
    Flag{4, ::nbd_is_rotational},  Flag{5, ::nbd_can_trim},   Flag{6, ::nbd_can_zero},
    Flag{8, ::nbd_can_multi_conn}, Flag{10, ::nbd_can_cache}, Flag{11, ::nbd_can_fast_zero},
};

Failure dial_failure() { return libnbd_failure("cannot connect"); }

// A connection on its way to the transmission phase.
class Dial {
 public:
  Result<void> start(const std::string& uri) {
    TRY(prepare());
    return begin_connecting(handle_.get(), uri);
  }

  Result<void> start(UniqueFd connected, const std::string& export_name) {
    TRY(prepare());
    // libnbd owns the socket from here on, also when it fails.
    if (::nbd_set_export_name(handle_.get(), export_name.c_str()) != 0 ||
        ::nbd_aio_connect_socket(handle_.get(), connected.release()) != 0) {
      return dial_failure();
    }
    return {};
  }

  Result<DialedExport> finish(std::chrono::milliseconds limit) {
    TRY(finish_connecting(handle_.get(), limit));
    const int64_t size = ::nbd_get_size(handle_.get());
    const int64_t min_block = ::nbd_get_block_size(handle_.get(), LIBNBD_SIZE_MINIMUM);
    if (size < 0 || min_block < 0) return dial_failure();
    DialedExport dialed;
    dialed.size_bytes = static_cast<uint64_t>(size);
    dialed.min_block = static_cast<uint32_t>(std::max<int64_t>(1, min_block));
    dialed.transmission_flags = TRY(flags());
    dialed.socket = TRY(take_socket());
    return dialed;
  }

 private:
  // The kernel's client understands simple replies only.
  Result<void> prepare() {
    handle_.reset(::nbd_create());
    if (!handle_ || ::nbd_set_request_structured_replies(handle_.get(), false) != 0) {
      return dial_failure();
    }
    return {};
  }

  Result<uint16_t> flags() {
    unsigned flags = 1;  // NBD_FLAG_HAS_FLAGS
    for (const Flag& flag : kFlags) {
      const int set = flag.is_set(handle_.get());
      if (set < 0) return dial_failure();
      if (set != 0) flags |= 1u << flag.bit;
    }
    return static_cast<uint16_t>(flags);
  }

  // A copy of libnbd's socket, as a client that blocks would have it. The peer of a TCP connection
  // may vanish without a word while nothing is asked: keep-alive finds out.
  Result<UniqueFd> take_socket() {
    const int fd = ::nbd_aio_get_fd(handle_.get());
    if (fd < 0) return dial_failure();
    UniqueFd socket(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    const int status = socket.valid() ? ::fcntl(socket.get(), F_GETFL) : -1;
    if (status < 0 || ::fcntl(socket.get(), F_SETFL, status & ~O_NONBLOCK) != 0) {
      return fail_errno(errno, "cannot take the socket over from libnbd");
    }
    const int on = 1;
    (void)::setsockopt(socket.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    return socket;
  }

  // Closing it leaves the copy of its socket in the transmission phase.
  LibnbdHandle handle_;
};

Result<void> check_scheme(const std::string& uri) {
  if (uri.starts_with("nbd://") || uri.starts_with("nbd+unix://")) return {};
  if (uri.starts_with("nbds+unix:")) {
    return fail(ErrorKind::kUnsupported,
                "the kernel, which would have to encrypt, does so on TCP only: use nbd+unix://, "
                "which does not leave this host, or nbds://");
  }
  return fail(ErrorKind::kUsage,
              "no NBD address that the kernel can use: it must begin with nbd://, nbds:// or "
              "nbd+unix://");
}

Result<DialedExport> dial(const std::string& uri, std::chrono::milliseconds limit) {
  if (uri.starts_with("nbds://")) return dial_nbd_tls(uri, limit);
  TRY(check_scheme(uri));
  Dial dial;
  TRY(dial.start(uri));
  return dial.finish(limit);
}

}  // namespace

Result<DialedExport> dial_nbd(const std::string& uri, std::chrono::milliseconds limit) {
  auto dialed = dial(uri, limit);
  if (!dialed) return in_file(std::move(dialed).error(), uri);
  return dialed;
}

Result<DialedExport> dial_nbd_over(UniqueFd connected, const std::string& export_name,
                                   std::chrono::milliseconds limit) {
  Dial dial;
  TRY(dial.start(std::move(connected), export_name));
  return dial.finish(limit);
}

std::string nbd_unix_uri(const std::string& socket_path, const std::string& export_name) {
  return fmt::format("nbd+unix:///{}?socket={}", percent_encoded(export_name, ""),
                     percent_encoded(socket_path, "/"));
}

}  // namespace underlay
