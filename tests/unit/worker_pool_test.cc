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
    for (const auto& job : jobs) pool.submit(*job, Urgency::kDemand);
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
    pool.submit(slow, Urgency::kDemand);
    pool.submit(queued, Urgency::kDemand);
  }
  CHECK(ran == 1);
}

TEST_CASE("workers: as many tasks run at the same time as there are threads") {
  std::barrier all(3);  // passes only when three tasks are in it
  Job one([&] { all.arrive_and_wait(); });
  Job two([&] { all.arrive_and_wait(); });
  Job three([&] { all.arrive_and_wait(); });
  WorkerPool pool(3);
  pool.submit(one, Urgency::kDemand);
  pool.submit(two, Urgency::kDemand);
  pool.submit(three, Urgency::kDemand);
}

TEST_CASE("workers: a task may submit itself again, from any thread") {
  std::atomic<int> left = 1000;
  {
    WorkerPool pool(2);
    struct Again final : Task {
      Again(WorkerPool& workers, std::atomic<int>& count) : workers_(workers), left_(count) {}
      void run() override {
        if (--left_ > 0) workers_.submit(*this, Urgency::kDemand);
      }
      WorkerPool& workers_;
      std::atomic<int>& left_;
    } again(pool, left);
    pool.submit(again, Urgency::kDemand);
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
        for (size_t i = first; i < jobs.size(); i += 4) pool.submit(*jobs[i], Urgency::kDemand);
      });
    }
    for (std::thread& submitter : submitters) submitter.join();
  }
  CHECK(ran == 4000);
}

// Fills the queues of a pool of one while its thread is held up, then lets it go.
std::string order_of(std::string_view submitted) {
  std::string ran;
  std::barrier held(2);
  Job hold([&] { held.arrive_and_wait(); });
  std::vector<std::unique_ptr<Job>> jobs;
  {
    WorkerPool pool(1);
    pool.submit(hold, Urgency::kDemand);
    for (const char kind : submitted) {
      jobs.push_back(std::make_unique<Job>([&ran, kind] { ran += kind; }));
      pool.submit(*jobs.back(), kind == 'd'   ? Urgency::kDemand
                                : kind == 'a' ? Urgency::kAhead
                                : kind == 'n' ? Urgency::kArrival
                                              : Urgency::kLong);
    }
    held.arrive_and_wait();
  }
  return ran;
}

TEST_CASE("workers: what a client waits for goes first") {
  CHECK(order_of("lad") == "dal");
  CHECK(order_of("lnad") == "danl");
  CHECK(order_of("llaadd") == "ddaall");
}

TEST_CASE("workers: what nobody waits for is not held up for ever") {
  // The task that held the thread up was the first of these eight.
  CHECK(order_of("ll" + std::string(20, 'd')) ==
        "ddddddlddddddd"
        "l"
        "ddddddd");
}

// A connection ends only when what it reads ahead has had its turn.
TEST_CASE("workers: long tasks do not hold up for ever what is read ahead") {
  CHECK(order_of("lllaa" + std::string(30, 'd')) ==
        "ddddddlddddddd"
        "addddddd"
        "lddddddd"
        "addd"
        "l");
}

TEST_CASE("workers: who arrives does not wait behind the long tasks of others") {
  CHECK(order_of(std::string(20, 'l') + "nn" + std::string(8, 'd')) ==
        "dddddd"
        "n"
        "dd"
        "n" +
            std::string(20, 'l'));
}

TEST_CASE("workers: long tasks leave a thread to those a client waits for") {
  std::barrier three(3);
  std::barrier end(3);
  std::atomic<int> long_running = 0;
  const auto work = [&] {
    ++long_running;
    three.arrive_and_wait();
    end.arrive_and_wait();
  };
  Job one(work);
  Job two(work);
  Job third([&] { ++long_running; });
  Job urgent([&] {
    three.arrive_and_wait();
    CHECK(long_running == 2);
    end.arrive_and_wait();
  });
  {
    WorkerPool pool(3);
    for (Job* job : {&one, &two, &third}) pool.submit(*job, Urgency::kLong);
    pool.submit(urgent, Urgency::kDemand);
  }
  CHECK(long_running == 3);
}

TEST_CASE("workers: reads of other machines leave threads to those of this one") {
  std::barrier three(3);
  std::barrier end(3);
  std::atomic<int> far_running = 0;
  const auto wait = [&] {
    ++far_running;
    three.arrive_and_wait();
    end.arrive_and_wait();
  };
  Job one(wait);
  Job two(wait);
  Job third([&] { ++far_running; });
  Job near([&] {
    three.arrive_and_wait();
    CHECK(far_running == 2);
    end.arrive_and_wait();
  });
  {
    WorkerPool pool(4, WorkerPool::Start::kNow, 2);
    for (Job* job : {&one, &two, &third}) pool.submit(*job, Urgency::kFar);
    pool.submit(near, Urgency::kDemand);
  }
  CHECK(far_running == 3);
}

}  // namespace
}  // namespace underlay
