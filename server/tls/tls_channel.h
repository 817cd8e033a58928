// One client's connection once it is encrypted: plain bytes in and out of a non-blocking socket.
//
// Records are put together in batches, so that many of them take one system call, and the client's
// bytes are fetched ahead of GnuTLS, which asks for headers and bodies one by one.
#pragma once

#include <gnutls/gnutls.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "io/buffer_pool.h"
#include "io/bytes.h"
#include "io/error.h"
#include "server/tls/tls_credentials.h"

namespace underlay {

// Used by one thread at a time.
class TlsChannel {
 public:
  // `socket` stays open as long as the channel lives.
  static Result<std::unique_ptr<TlsChannel>> create(
      std::shared_ptr<const TlsCredentials> credentials, int socket);
  ~TlsChannel();
  TlsChannel(const TlsChannel&) = delete;
  TlsChannel& operator=(const TlsChannel&) = delete;

  // Goes on with the handshake, which takes milliseconds of a processor, as far as the socket
  // allows. Fails when it cannot be finished, or the client may not connect.
  enum class Step : uint8_t { kDone, kWantsInput, kWantsOutput };
  Result<Step> handshake();

  // Decrypts into `out`. Bytes, 0 at the end of the stream, -EAGAIN when the socket must become
  // readable first, -EPROTO when the client broke the protocol. REQUIRES: the handshake is done.
  int64_t receive(MutableByteSpan out);
  // Encrypts and sends from the front of `message`. Bytes that have left for good, -EAGAIN when the
  // socket must become writable first, -ENOBUFS when `buffers` has none, another -errno when the
  // connection is broken. After -EAGAIN the next call says the same bytes again.
  int64_t send(const msghdr& message, BufferPool& buffers);
  // Gives back what a silent connection does not need. REQUIRES: nothing waits to be sent.
  void release_memory();
  // Tells the client, if that is possible at once, that no more will come.
  void say_goodbye();

 private:
  TlsChannel(std::shared_ptr<const TlsCredentials> credentials, int socket);
  static ssize_t push(gnutls_transport_ptr_t channel, const void* data, size_t size);
  static ssize_t pull(gnutls_transport_ptr_t channel, void* data, size_t size);
  static int pull_timeout(gnutls_transport_ptr_t channel, unsigned milliseconds);

  ssize_t take(MutableByteSpan out);
  int flush();
  int encrypt(const msghdr& message);
  int encrypt_records(ByteSpan data);
  bool has_fetched() const { return fetched_begin_ < fetched_end_; }

  const std::shared_ptr<const TlsCredentials> credentials_;
  const int socket_;
  gnutls_session_t session_ = nullptr;
  bool shaken_ = false;  // the handshake is over, but for what is still to be sent

  Buffer batch_;  // records on their way; empty between batches
  size_t batch_begin_ = 0;
  size_t batch_end_ = 0;
  size_t batch_plain_ = 0;             // bytes of the client's that they hold
  std::vector<std::byte> own_output_;  // what GnuTLS says itself: handshakes, alerts
  std::vector<std::byte> record_;      // short pieces, on their way into one record

  static constexpr size_t kFetch = 4 << 10;
  std::array<std::byte, kFetch> fetched_;
  size_t fetched_begin_ = 0;
  size_t fetched_end_ = 0;
};

}  // namespace underlay
