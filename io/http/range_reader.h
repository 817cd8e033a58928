// Ranges of an object on a server, several at the same time, over connections that are kept.
#pragma once

#include <memory>
#include <vector>

#include "io/bytes.h"
#include "io/error.h"
#include "io/http/curl_handle.h"
#include "io/http/http_limits.h"
#include "io/http/http_reply.h"
#include "io/http/http_target.h"

namespace underlay {

// Belongs to one thread at a time.
class RangeReader {
 public:
  // `target` and `limits` outlive it. REQUIRES: load_curl() has succeeded.
  RangeReader(const HttpTarget& target, const HttpLimits& limits);
  RangeReader(const RangeReader&) = delete;
  RangeReader& operator=(const RangeReader&) = delete;
  ~RangeReader();

  // Asks for the first `out.size()` bytes, to learn which object there is. Fills the front of `out`
  // with as many of them as it has. Blocks. Errors, here and in read(), are without the name.
  Result<ObjectPin> open(MutableByteSpan out);

  // Fills all of `out` with bytes of that very object. Blocks. REQUIRES: the range lies within it.
  Result<void> read(const ObjectPin& pin, uint64_t offset, MutableByteSpan out);

  // Was the last failure that the server has another object now?
  bool object_changed() const { return object_changed_; }

 private:
  struct Transfer;

  Result<void> run(unsigned tries);
  Result<void> start_due(size_t& running);
  Result<void> start(Transfer& transfer);
  Result<void> prepare(Transfer& transfer);
  Result<void> take_finished(size_t& running, unsigned tries);
  Result<void> finish(Transfer& transfer, CURLcode code, unsigned tries);
  Result<void> finish_refused(Transfer& transfer, const JudgedReply& reply, unsigned tries);
  Result<void> try_later(Transfer& transfer, unsigned tries, Error why);
  void stop_all();

  const HttpTarget& target_;
  const HttpLimits& limits_;
  CurlMulti multi_;
  std::vector<std::unique_ptr<Transfer>> transfers_;  // of the read at hand
  std::vector<CurlEasy> idle_;
  bool object_changed_ = false;
};

}  // namespace underlay
