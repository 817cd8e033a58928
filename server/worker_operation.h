// One NBD request that is carried out on a worker as a whole: block status, prefetch.
#pragma once

#include <memory>

#include "io/ring.h"
#include "io/task.h"
#include "io/worker_pool.h"
#include "server/block_status.h"
#include "server/export.h"
#include "server/request.h"

namespace underlay {

class WorkerOperation;

class WorkerOperationOwner {
 public:
  virtual ~WorkerOperationOwner() = default;
  virtual void operation_done(std::unique_ptr<WorkerOperation> operation) = 0;
};

// Owns itself while it runs.
class WorkerOperation {
 public:
  // Calls owner.operation_done() on the ring's thread once it is done; all but `contexts` and
  // `request`, which are copied, outlive that.
  static void start(Ring& ring, WorkerPool& workers, WorkerOperationOwner& owner,
                    const Export& target, const Negotiated& contexts, const Request& request);

  const Request& request() const { return request_; }
  const Result<void>& result() const { return result_; }
  const BlockStatus& status() const { return status_; }  // after success of kBlockStatus

 private:
  WorkerOperation(Ring& ring, WorkerOperationOwner& owner, const Export& target,
                  const Negotiated& contexts, const Request& request)
      : ring_(ring), owner_(owner), export_(target), contexts_(contexts), request_(request) {}
  void work();
  void done();

  Ring& ring_;
  WorkerOperationOwner& owner_;
  const Export& export_;
  const Negotiated contexts_;
  const Request request_;
  Result<void> result_;
  BlockStatus status_;
  MethodTask<&WorkerOperation::work> work_task_{*this};
  MethodTask<&WorkerOperation::done> done_task_{*this};
};

}  // namespace underlay
