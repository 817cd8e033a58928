// How the replies of a session leave: as much as the socket takes at once by plain system calls,
// and the ring waits for the rest. A completion for each send would only make one more trip to the
// kernel.
#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "io/send_file.h"
#include "server/session.h"

namespace underlay {
namespace {

// Of what send_file() returns: the socket is full, or the client is gone.
bool is_about_client(int64_t sent) {
  return sent == -EAGAIN || sent == -EINTR || sent == -EPIPE || sent == -ECONNRESET ||
         sent == -ETIMEDOUT || sent == -EHOSTUNREACH || sent == -ENETUNREACH;
}

// Lets the source of what could not be sent see that for itself: when the client comes back, such
// bytes are read before their header is sent, and one reply tells the failure.
void meet_failure(const Disk& disk, const SendQueue::FilePart& file) {
  for (const Layer& layer : disk.layers()) {
    for (const Source* source : layer.reader->sources()) {
      std::byte byte;
      if (source->file().fd() == file.fd) {
        (void)source->file().read_at(file.offset, MutableByteSpan(&byte, 1));
      }
    }
  }
}

}  // namespace

void Session::prepare_socket() {
  // For send_file(). What the ring does waits all the same.
  const int flags = ::fcntl(socket_.get(), F_GETFL);
  (void)::fcntl(socket_.get(), F_SETFL, flags | O_NONBLOCK);
  int domain = 0;
  socklen_t size = sizeof(domain);
  (void)::getsockopt(socket_.get(), SOL_SOCKET, SO_DOMAIN, &domain, &size);
  is_unix_socket_ = domain == AF_UNIX;
}

// TCP finds the size of its buffers out by itself.
void Session::widen_socket() {
  if (widened_) return;
  widened_ = true;
  const auto size = static_cast<int>(limits::kSocketBuffer);
  if (is_unix_socket_) {
    (void)::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
  }
}

void Session::flush() {
  if (sending_ || queue_.unsent() == 0 || phase_ == Phase::kClosed) return;
  last_sent_ = std::chrono::steady_clock::now();
  // Others on this thread have their turn, too, however fast this client reads.
  while (turn_left_ > 0 && queue_.unsent() > 0) {
    const auto file = queue_.file();
    const int64_t result = file ? send_from_file(*file) : send_from_memory();
    if (result == -EAGAIN || result == -EINTR) return wait_to_send(file.has_value());
    if (result == -ENOBUFS && tls_) return memory_wanted();
    if (result <= 0) return close();
    queue_.sent(static_cast<size_t>(result));
    turn_left_ -= std::min(turn_left_, static_cast<size_t>(result));
  }
  if (queue_.unsent() > 0) schedule_pump();
}

int64_t Session::send_from_memory() {
  if (tls_) return send_encrypted();
  const bool more = queue_.prepare(message_);
  const ssize_t sent =
      ::sendmsg(socket_.get(), &message_, MSG_NOSIGNAL | MSG_DONTWAIT | (more ? MSG_MORE : 0));
  return sent < 0 ? -errno : sent;
}

// The client has the header already: if the file fails now, only the end of the connection says so.
int64_t Session::send_from_file(const SendQueue::FilePart& file) {
  const size_t size = std::min(file.size, limits::kSendBytes);
  const int64_t sent = send_file(socket_.get(), file.fd, file.offset, size);
  if (sent <= 0 && !is_about_client(sent)) {
    host_.log().error(
        fmt::format("export \"{}\": {} bytes at offset {} of an image's file cannot be sent: {}; "
                    "connection "
                    "closed",
                    printable(export_->name(), 80), file.size, file.offset,
                    sent == 0 ? "the file ends before them"
                              : std::generic_category().message(static_cast<int>(-sent))),
        log_fields().file_offset(file.offset).system_error(static_cast<int>(-sent)));
    meet_failure(export_->disk(), file);
  }
  return sent;
}

// Until the client has read something: the ring sends what lies in memory, and tells when there is
// room for what lies in files or is to be encrypted.
void Session::wait_to_send(bool for_file) {
  sending_ = true;
  ++outstanding_;
  if (for_file || tls_) return host_.ring().wait_writable(socket_.get(), writable_);
  queue_.prepare(message_);
  host_.ring().send(socket_.get(), message_, sent_);
}

void Session::on_writable(int) {
  sending_ = false;
  --outstanding_;
  schedule_pump();
}

void Session::on_sent(int result) {
  sending_ = false;
  --outstanding_;
  if (result > 0) {
    queue_.sent(static_cast<size_t>(result));
  } else if (result != -EINTR && result != -EAGAIN) {
    close();
  }
  schedule_pump();
}

}  // namespace underlay
