// One NBD read whose reply is sent without a copy once workers have unpacked the clusters that it
// needs, several of them at the same time.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "io/buffer_pool.h"
#include "io/ring.h"
#include "io/task.h"
#include "io/worker_pool.h"
#include "server/export.h"
#include "server/reply_part.h"
#include "server/request.h"

namespace underlay {

class ClusterRead;

class ClusterReadOwner {
 public:
  virtual ~ClusterReadOwner() = default;
  virtual void clusters_unpacked(std::unique_ptr<ClusterRead> read) = 0;
};

// Owns itself while it runs.
class ClusterRead {
 public:
  // Has the parts that are not ready unpacked, and calls owner.clusters_unpacked() on the ring's
  // thread then; all but `request`, which is copied, outlive that. `headers` is the owner's, for
  // the reply. REQUIRES: some part is not ready.
  static void start(Ring& ring, WorkerPool& workers, ClusterReadOwner& owner, const Export& target,
                    const Request& request, std::vector<ReplyPart> parts, Buffer headers);

  const Request& request() const { return request_; }
  const Result<void>& result() const { return result_; }
  std::span<ReplyPart> parts() { return parts_; }  // after success, all are ready
  Buffer take_headers() { return std::move(headers_); }

 private:
  class Share final : public Task {
   public:
    void run() override { read->unpack_share(); }
    ClusterRead* read = nullptr;
  };
  static constexpr size_t kShares = 8;

  ClusterRead(Ring& ring, ClusterReadOwner& owner, const Export& target, const Request& request,
              std::vector<ReplyPart> parts, Buffer headers);
  void submit(WorkerPool& workers);
  void unpack_share();
  void unpack(ReplyPart& part);
  void done();

  Ring& ring_;
  ClusterReadOwner& owner_;
  const Export& export_;
  const Request request_;
  std::vector<ReplyPart> parts_;
  Buffer headers_;
  std::array<Share, kShares> shares_;
  std::atomic<size_t> next_ = 0;     // of the parts: whose turn it is
  std::atomic<size_t> running_ = 0;  // shares that were submitted and have not ended
  std::mutex mutex_;
  Result<void> result_;  // under mutex_ while shares run: the first failure
  MethodTask<&ClusterRead::done> done_task_{*this};
};

}  // namespace underlay
