// A connection to an NBD export, for reading, that threads share: each waits for its own request,
// and one of those that wait runs the connection for all.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "io/bytes.h"
#include "io/error.h"
#include "io/libnbd_handle.h"
#include "io/unique_fd.h"

namespace underlay {

// How long a server may keep us waiting. A dead one must not hang a command for ever; one that
// fetches from slow storage must get its time.
struct NbdLimits {
  std::chrono::milliseconds connect{10'000};
  std::chrono::milliseconds further_connect{1'000};  // of connections that we can do without
  std::chrono::milliseconds answer{60'000};          // to one request
};

// What the server said of the export.
struct NbdExport {
  uint64_t size = 0;       // bytes
  uint64_t min_block = 1;  // bytes: offsets and lengths of requests are multiples
  uint64_t max_block = 0;  // bytes: no read is to be longer; a multiple of min_block
  bool multi_conn = false;
  bool block_status = false;  // base:allocation was negotiated
  bool operator==(const NbdExport&) const = default;
};

// A run of an export's bytes, by base:allocation. Neighbours that say the same are joined.
struct NbdRun {
  uint64_t end = 0;  // it begins where the one before it ends
  bool zero = false;
  bool hole = false;
};

class NbdConnection {
 public:
  // `uri` as open_nbd_source() takes it. Blocks.
  static Result<std::unique_ptr<NbdConnection>> connect(const std::string& uri,
                                                        std::chrono::milliseconds connect_limit,
                                                        std::chrono::milliseconds answer_limit);
  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;
  ~NbdConnection();

  const NbdExport& facts() const { return facts_; }

  // Thread-safe from here on. Errors are without the URI and the offset. When an answer does not
  // come in time or makes no sense, or the server is gone, this and all further requests fail.

  // One request. REQUIRES: offset and length are multiples of min_block (or lead to the end), and
  // 0 < out.size() <= max_block.
  Result<void> read(uint64_t offset, MutableByteSpan out);

  // What the server tells of [offset, offset + length), from `offset` on: at least one run, at most
  // kMaxRuns; maybe less than asked for. REQUIRES: block_status, and alignment as in read().
  Result<std::vector<NbdRun>> block_status(uint64_t offset, uint32_t length);
  static constexpr size_t kMaxRuns = 128 << 10;  // 2 MiB; no QEMU sends more

  // Requests that wait for their answer.
  int in_flight() const { return in_flight_.load(std::memory_order_relaxed); }
  // Do all further requests fail?
  bool is_lost() const { return is_lost_.load(std::memory_order_relaxed); }

 private:
  struct Request;

  explicit NbdConnection(std::chrono::milliseconds limit) : answer_limit_(limit) {}
  Result<void> open(const std::string& uri, std::chrono::milliseconds limit);
  Result<void> learn_facts();
  Result<void> issue(Request& request, int64_t cookie);
  Result<void> wait(std::unique_lock<std::mutex>& lock, Request& request);
  void run_once(std::unique_lock<std::mutex>& lock, std::chrono::steady_clock::time_point until);
  void notify(short events);
  void lose(Error why);
  void wake_another();

  std::chrono::milliseconds answer_limit_;
  NbdExport facts_;
  UniqueFd wake_;  // eventfd: the thread in poll() is to look again
  std::atomic<int> in_flight_ = 0;
  std::atomic<bool> is_lost_ = false;

  std::mutex mutex_;               // of everything below, and of all calls of libnbd
  LibnbdHandle handle_;            // null once the connection is lost
  Error lost_;                     // why
  bool running_ = false;           // a thread is in poll()
  std::vector<Request*> waiting_;  // all that have no answer yet
};

}  // namespace underlay
