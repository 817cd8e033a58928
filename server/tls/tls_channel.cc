#include "server/tls/tls_channel.h"

#include <poll.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>

#include "server/limits.h"
#include "server/reply_memory.h"

namespace underlay {
namespace {

constexpr size_t kMaxRecord = 16 << 10;  // RFC 8446, section 5.1
constexpr size_t kRecordExtra = 256;     // header, nonce, tag and padding take less
constexpr size_t kLeastBatch = 32 << 10;
constexpr unsigned kMaxWarnings = 8;        // that a client may send in one turn
constexpr size_t kMaxHandshake = 32 << 10;  // of one message
constexpr size_t kMaxOwnOutput = 256 << 10;

std::ptrdiff_t to_signed(size_t size) { return static_cast<std::ptrdiff_t>(size); }

bool may_pass(ssize_t status) { return status == GNUTLS_E_AGAIN || status == GNUTLS_E_INTERRUPTED; }

}  // namespace

TlsChannel::TlsChannel(std::shared_ptr<const TlsCredentials> credentials, int socket)
    : credentials_(std::move(credentials)), socket_(socket) {}

TlsChannel::~TlsChannel() {
  if (session_ != nullptr) ::gnutls_deinit(session_);
}

Result<std::unique_ptr<TlsChannel>> TlsChannel::create(
    std::shared_ptr<const TlsCredentials> credentials, int socket) {
  std::unique_ptr<TlsChannel> made(new TlsChannel(std::move(credentials), socket));
  int status = ::gnutls_init(&made->session_, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
  if (status == 0) status = made->credentials_->apply(made->session_);
  if (status != 0) return fail(ErrorKind::kLimit, "TLS: {}", ::gnutls_strerror(status));
  ::gnutls_handshake_set_max_packet_length(made->session_, kMaxHandshake);
  ::gnutls_transport_set_ptr(made->session_, made.get());
  ::gnutls_transport_set_push_function(made->session_, push);
  ::gnutls_transport_set_pull_function(made->session_, pull);
  ::gnutls_transport_set_pull_timeout_function(made->session_, pull_timeout);
  return made;
}

Result<TlsChannel::Step> TlsChannel::handshake() {
  // Non-fatal ones (warnings) say nothing of the socket: there may be more at hand.
  int status = 0;
  do {
    if (!shaken_) status = ::gnutls_handshake(session_);
  } while (status != 0 && ::gnutls_error_is_fatal(status) == 0 && has_fetched());
  shaken_ = status == 0;
  const int sent = flush();
  if (status != 0 && ::gnutls_error_is_fatal(status) != 0) {
    (void)::gnutls_alert_send_appropriate(session_, status);
    (void)flush();
    return fail(ErrorKind::kDenied, "the TLS handshake failed: {}", ::gnutls_strerror(status));
  }
  if (sent == -EAGAIN) return Step::kWantsOutput;
  if (sent != 0) return fail_errno(-sent, "the TLS handshake was broken off");
  if (status != 0) return Step::kWantsInput;
  TRY(credentials_->authorize(session_));
  return Step::kDone;
}

int64_t TlsChannel::receive(MutableByteSpan out) {
  for (unsigned warnings = 0; warnings < kMaxWarnings;) {
    const ssize_t got = ::gnutls_record_recv(session_, out.data(), out.size());
    // Clients that have said goodbye in NBD's words just close.
    if (got == GNUTLS_E_PREMATURE_TERMINATION) return 0;
    if (got >= 0) return got;
    if (may_pass(got)) {
      // After a key update, too, behind which there may be more at hand.
      if (!has_fetched()) return -EAGAIN;
    } else if (got == GNUTLS_E_WARNING_ALERT_RECEIVED) {
      ++warnings;
    } else {
      return -EPROTO;  // a second handshake among them, which is not for NBD
    }
  }
  return -EPROTO;
}

int64_t TlsChannel::send(const msghdr& message, BufferPool& buffers) {
  if (batch_plain_ == 0) {
    if (const int sent = flush(); sent != 0) return sent;
    const uint64_t share = share_of_reply_memory(limits::kTlsBatch, buffers);
    const size_t size = std::max(kLeastBatch, std::bit_floor(static_cast<size_t>(share)));
    // It sends what holds memory already: see ByteBudget.
    auto batch = buffers.allocate(size, ByteBudget::Use::kSmall);
    if (!batch) return -ENOBUFS;
    batch_ = *std::move(batch);
    if (const int status = encrypt(message); status != 0) return status;
  }
  if (const int sent = flush(); sent != 0) return sent;
  batch_ = Buffer();
  return static_cast<int64_t>(std::exchange(batch_plain_, 0));
}

// As many records as fit into the batch. What is not encrypted is not counted, and comes again.
int TlsChannel::encrypt(const msghdr& message) {
  record_.clear();
  for (size_t i = 0; i < message.msg_iovlen; ++i) {
    ByteSpan data(static_cast<const std::byte*>(message.msg_iov[i].iov_base),
                  message.msg_iov[i].iov_len);
    while (!data.empty()) {
      const size_t part = std::min(data.size(), kMaxRecord - record_.size());
      const bool whole = record_.empty() && part == kMaxRecord;
      if (!whole) record_.insert(record_.end(), data.begin(), data.begin() + to_signed(part));
      const ByteSpan full = whole ? data.first(part) : ByteSpan(record_);
      data = data.subspan(part);
      if (full.size() < kMaxRecord) continue;
      if (const int status = encrypt_records(full); status != 0) return std::min(status, 0);
      record_.clear();
    }
  }
  return record_.empty() ? 0 : std::min(encrypt_records(record_), 0);
}

// push() takes all that GnuTLS makes of it, so that nothing is left to be asked again. 0 when all
// is encrypted, 1 when there is no room for more.
int TlsChannel::encrypt_records(ByteSpan data) {
  while (!data.empty()) {
    if (batch_.capacity() - batch_end_ < std::min(data.size(), kMaxRecord) + kRecordExtra) return 1;
    // Less than all where the client wants shorter records (RFC 8449).
    const ssize_t sent = ::gnutls_record_send(session_, data.data(), data.size());
    if (sent <= 0) return -EPROTO;
    data = data.subspan(static_cast<size_t>(sent));
    batch_plain_ += static_cast<size_t>(sent);
  }
  return 0;
}

ssize_t TlsChannel::push(gnutls_transport_ptr_t pointer, const void* data, size_t size) {
  auto& channel = *static_cast<TlsChannel*>(pointer);
  const auto* bytes = static_cast<const std::byte*>(data);
  if (channel.batch_) {
    if (channel.batch_.capacity() - channel.batch_end_ < size) {
      ::gnutls_transport_set_errno(channel.session_, ENOBUFS);
      return -1;
    }
    std::memcpy(channel.batch_.data() + channel.batch_end_, bytes, size);
    channel.batch_end_ += size;
    return static_cast<ssize_t>(size);
  }
  if (channel.own_output_.size() + size > kMaxOwnOutput) {
    ::gnutls_transport_set_errno(channel.session_, ENOBUFS);
    return -1;
  }
  try {
    channel.own_output_.insert(channel.own_output_.end(), bytes, bytes + size);
  } catch (const std::bad_alloc&) {  // GnuTLS is C
    ::gnutls_transport_set_errno(channel.session_, ENOMEM);
    return -1;
  }
  return static_cast<ssize_t>(size);
}

// Sends what is ready. 0 when all has left, or -errno.
int TlsChannel::flush() {
  const auto send_from = [&](const std::byte* data, size_t size) -> int64_t {
    const ssize_t sent = ::send(socket_, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return sent;
    return errno == EINTR ? -EAGAIN : -errno;
  };
  while (batch_begin_ < batch_end_) {
    const int64_t sent = send_from(batch_.data() + batch_begin_, batch_end_ - batch_begin_);
    if (sent < 0) return static_cast<int>(sent);
    batch_begin_ += static_cast<size_t>(sent);
  }
  batch_begin_ = batch_end_ = 0;
  while (!own_output_.empty()) {
    const int64_t sent = send_from(own_output_.data(), own_output_.size());
    if (sent < 0) return static_cast<int>(sent);
    own_output_.erase(own_output_.begin(), own_output_.begin() + sent);
  }
  return 0;
}

ssize_t TlsChannel::pull(gnutls_transport_ptr_t pointer, void* data, size_t size) {
  auto& channel = *static_cast<TlsChannel*>(pointer);
  return channel.take(MutableByteSpan(static_cast<std::byte*>(data), size));
}

ssize_t TlsChannel::take(MutableByteSpan out) {
  if (fetched_begin_ == fetched_end_) {
    const bool directly = out.size() >= kFetch;
    const MutableByteSpan into = directly ? out : MutableByteSpan(fetched_);
    const ssize_t got = ::recv(socket_, into.data(), into.size(), MSG_DONTWAIT);
    if (got <= 0) {
      if (got < 0) ::gnutls_transport_set_errno(session_, errno);
      return got;
    }
    if (directly) return got;
    fetched_begin_ = 0;
    fetched_end_ = static_cast<size_t>(got);
  }
  const size_t part = std::min(out.size(), fetched_end_ - fetched_begin_);
  std::memcpy(out.data(), fetched_.data() + fetched_begin_, part);
  fetched_begin_ += part;
  return static_cast<ssize_t>(part);
}

// GnuTLS asks whether it may wait: it may not, the ring does.
int TlsChannel::pull_timeout(gnutls_transport_ptr_t pointer, unsigned) {
  const auto& channel = *static_cast<TlsChannel*>(pointer);
  if (channel.fetched_begin_ < channel.fetched_end_) return 1;
  pollfd ready{.fd = channel.socket_, .events = POLLIN, .revents = 0};
  return ::poll(&ready, 1, 0);
}

void TlsChannel::release_memory() {
  std::vector<std::byte>().swap(record_);
  std::vector<std::byte>().swap(own_output_);
}

void TlsChannel::say_goodbye() {
  if (batch_plain_ > 0) return;  // in the middle of a batch
  (void)::gnutls_bye(session_, GNUTLS_SHUT_WR);
  (void)flush();
}

}  // namespace underlay
