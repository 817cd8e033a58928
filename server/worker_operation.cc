#include "server/worker_operation.h"

#include <algorithm>

#include "server/limits.h"

namespace underlay {

void WorkerOperation::start(Ring& ring, WorkerPool& workers, WorkerOperationOwner& owner,
                            const Export& target, const Request& request) {
  auto* operation = new WorkerOperation(ring, owner, target, request);
  workers.submit(operation->work_task_);
}

void WorkerOperation::work() {
  if (request_.command == nbd::Command::kCache) {
    result_ = export_.disk().prefetch(export_.start() + request_.offset,
                                      std::min(request_.length, limits::kPrefetchBytes));
  } else {
    auto status = block_status(export_, request_.offset, request_.length,
                               (request_.flags & nbd::kCommandReqOne) != 0);
    if (status) {
      status_ = *std::move(status);
    } else {
      result_ = Failure(std::move(status).error());
    }
  }
  ring_.post(done_task_);
}

void WorkerOperation::done() { owner_.operation_done(std::unique_ptr<WorkerOperation>(this)); }

}  // namespace underlay
