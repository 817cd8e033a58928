// A connected stream socket on which everything must have happened by one point in time, whatever
// the peer does. Also one that has TLS in the kernel (io/kernel_tls.h): then what is said in TLS
// itself arrives between the data, and is told apart.
#pragma once

#include <chrono>

#include "io/bytes.h"
#include "io/error.h"
#include "io/unique_fd.h"

namespace underlay {

// For one thread.
class TimedSocket {
 public:
  using Clock = std::chrono::steady_clock;

  // Connects to the first address of `host` that answers. `port`: a number. The look-up of a name
  // takes the time it takes. kNotFound when there is no such host.
  static Result<TimedSocket> connect_tcp(const std::string& host, const std::string& port,
                                         Clock::time_point until);
  // `connected` is a connected stream socket.
  static Result<TimedSocket> adopt(UniqueFd connected, Clock::time_point until);

  int fd() const { return socket_.get(); }  // non-blocking

  // All of `bytes`.
  Result<void> send(ByteSpan bytes);
  // Exactly as many bytes as `out` has: what is behind them stays in the socket. Messages of a TLS
  // handshake, such as session tickets, are skipped, within limits; an alert fails.
  Result<void> receive(MutableByteSpan out);
  // Until the socket is ready for `events` of poll(2).
  Result<void> wait(short events) const;

  // The socket, blocking, for the kernel or whoever goes on with it.
  Result<UniqueFd> release() &&;

 private:
  TimedSocket(UniqueFd socket, Clock::time_point until)
      : socket_(std::move(socket)), until_(until) {}
  Result<void> finish_connecting() const;

  UniqueFd socket_;
  Clock::time_point until_;
};

}  // namespace underlay
