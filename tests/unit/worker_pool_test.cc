#include "io/worker_pool.h"

#include <doctest/doctest.h>

#include <atomic>
#include <barrier>
#include <functional>
#include <mutex>

namespace underlay {
namespace {

class Job final : public Task {
 public:
  explicit Job(std::function<void()> work) : work_(std::move(work)) {}
  void run() override { work_(); }

 private:
  std::function<void()> work_;
};

TEST_CASE("workers: one worker runs tasks in order of submission") {
  std::vector<int> ran;
  std::vector<std::unique_ptr<Job>> jobs;
  for (int i = 0; i < 1000; ++i) {
    jobs.push_back(std::make_unique<Job>([&ran, i] { ran.push_back(i); }));
  }
  {
    WorkerPool pool(1);
    for (const auto& job : jobs) pool.submit(*job);
  }
  REQUIRE(ran.size() == jobs.size());
  for (int i = 0; i < 1000; ++i) CHECK(ran[static_cast<size_t>(i)] == i);
}

TEST_CASE("workers: the destructor runs what is queued") {
  std::atomic<int> ran = 0;
  Job slow([] { std::this_thread::sleep_for(std::chrono::milliseconds(50)); });
  Job queued([&] { ++ran; });
  {
    WorkerPool pool(1);
    pool.submit(slow);
    pool.submit(queued);
  }
  CHECK(ran == 1);
}

TEST_CASE("workers: as many tasks run at the same time as there are threads") {
  std::barrier all(3);  // passes only when three tasks are in it
  Job one([&] { all.arrive_and_wait(); });
  Job two([&] { all.arrive_and_wait(); });
  Job three([&] { all.arrive_and_wait(); });
  WorkerPool pool(3);
  pool.submit(one);
  pool.submit(two);
  pool.submit(three);
}

TEST_CASE("workers: a task may submit itself again, from any thread") {
  std::atomic<int> left = 1000;
  {
    WorkerPool pool(2);
    struct Again final : Task {
      Again(WorkerPool& workers, std::atomic<int>& count) : workers_(workers), left_(count) {}
      void run() override {
        if (--left_ > 0) workers_.submit(*this);
      }
      WorkerPool& workers_;
      std::atomic<int>& left_;
    } again(pool, left);
    pool.submit(again);
    while (left > 0) std::this_thread::yield();
  }
  CHECK(left == 0);
}

TEST_CASE("workers: many submitters lose no task") {
  std::atomic<int> ran = 0;
  std::vector<std::unique_ptr<Job>> jobs;
  for (int i = 0; i < 4000; ++i) jobs.push_back(std::make_unique<Job>([&] { ++ran; }));
  {
    WorkerPool pool(4);
    std::vector<std::thread> submitters;
    for (size_t first = 0; first < 4; ++first) {
      submitters.emplace_back([&, first] {
        for (size_t i = first; i < jobs.size(); i += 4) pool.submit(*jobs[i]);
      });
    }
    for (std::thread& submitter : submitters) submitter.join();
  }
  CHECK(ran == 4000);
}

}  // namespace
}  // namespace underlay
