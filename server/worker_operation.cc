#include "server/worker_operation.h"

#include <algorithm>

#include "server/limits.h"

namespace underlay {

void WorkerOperation::start(Ring& ring, WorkerPool& workers, WorkerOperationOwner& owner,
                            const Export& target, const Negotiated& contexts,
                            const Request& request) {
  auto* operation = new WorkerOperation(ring, owner, target, contexts, request);
  workers.submit(operation->work_task_, Urgency::kLong);
}

void WorkerOperation::work() {
  result_ = without_exceptions([&]() -> Result<void> {
    if (request_.command == nbd::Command::kCache) {
      return export_.disk().prefetch(request_.offset,
                                     std::min(request_.length, limits::kPrefetchBytes));
    }
    const bool only_one = (request_.flags & nbd::kCommandReqOne) != 0;
    status_ = TRY(block_status(export_, contexts_, request_.offset, request_.length, only_one));
    return {};
  });
  ring_.post(done_task_);
}

void WorkerOperation::done() { owner_.operation_done(std::unique_ptr<WorkerOperation>(this)); }

}  // namespace underlay
