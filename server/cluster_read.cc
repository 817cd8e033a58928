#include "server/cluster_read.h"

#include <algorithm>

namespace underlay {

void ClusterRead::start(Ring& ring, WorkerPool& workers, ClusterReadOwner& owner,
                        const Export& target, const Request& request, std::vector<ReplyPart> parts,
                        Buffer headers) {
  auto* read = new ClusterRead(ring, owner, target, request, std::move(parts), std::move(headers));
  read->submit(workers);
}

ClusterRead::ClusterRead(Ring& ring, ClusterReadOwner& owner, const Export& target,
                         const Request& request, std::vector<ReplyPart> parts, Buffer headers)
    : ring_(ring),
      owner_(owner),
      export_(target),
      request_(request),
      parts_(std::move(parts)),
      headers_(std::move(headers)) {}

void ClusterRead::submit(WorkerPool& workers) {
  const auto missing = static_cast<size_t>(std::count_if(
      parts_.begin(), parts_.end(), [](const ReplyPart& part) { return !part.is_ready(); }));
  const size_t count = std::min<size_t>({missing, workers.threads(), kShares});
  running_ = count;
  const Urgency demand = export_.demand();
  // The last of them may end this: `count` is all that is looked at.
  for (size_t i = 0; i < count; ++i) {
    shares_[i].read = this;
    workers.submit(shares_[i], demand);
  }
}

// On a worker.
void ClusterRead::unpack_share() {
  for (size_t i = next_++; i < parts_.size(); i = next_++) {
    if (!parts_[i].is_ready()) unpack(parts_[i]);
  }
  if (--running_ == 0) ring_.post(done_task_);
}

void ClusterRead::unpack(ReplyPart& part) {
  auto cluster = without_exceptions([&] { return export_.disk().unpacked(part.extent); });
  if (cluster) {
    part.cluster = *std::move(cluster);
    return;
  }
  next_ = parts_.size();  // the rest is of no use any more
  const std::lock_guard lock(mutex_);
  if (result_) result_ = Failure(std::move(cluster).error());
}

void ClusterRead::done() { owner_.clusters_unpacked(std::unique_ptr<ClusterRead>(this)); }

}  // namespace underlay
