// Requests with bodies to an S3 store, several at a time, tried again where that may help.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "io/bytes.h"
#include "io/error.h"
#include "io/http/curl_handle.h"
#include "io/http/http_target.h"
#include "io/http/object_writer.h"

namespace underlay {

struct StoreRequest {
  std::string method;  // PUT, POST, DELETE
  std::string url;
  ByteSpan body;  // lives until the request has been answered
};

struct StoreReply {
  std::string etag;      // "" when there is none
  std::string document;  // the front of its body
};

// Belongs to one thread.
class StoreRequests {
 public:
  // Of a success. A failure ends the wait.
  using OnReply = std::function<Result<void>(const StoreReply& reply)>;

  // Both outlive it. REQUIRES: load_curl() has succeeded.
  StoreRequests(const HttpTarget& target, const WriteSettings& settings);
  StoreRequests(const StoreRequests&) = delete;
  StoreRequests& operator=(const StoreRequests&) = delete;
  ~StoreRequests();

  // Sends it, and does what can be done of the others without waiting.
  Result<void> start(StoreRequest request, OnReply on_reply);

  // Does what can be done without waiting.
  Result<void> go_on();

  // Blocks until at most `count` requests are not answered. The first failure ends it; errors are
  // without the object's name.
  Result<void> wait_until_left(size_t count);

  size_t under_way() const { return transfers_.size(); }

 private:
  struct Transfer;

  Result<void> start_due();
  Result<void> send(Transfer& transfer);
  Result<void> take_finished();
  Result<void> finish(Transfer& transfer, CURLcode code);
  Result<void> try_later(Transfer& transfer, Error why);

  const HttpTarget& target_;
  const WriteSettings& settings_;
  CurlMulti multi_;
  std::vector<std::unique_ptr<Transfer>> transfers_;  // not answered
};

}  // namespace underlay
