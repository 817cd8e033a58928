#include "io/ring.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <ctime>
#include <functional>
#include <thread>

#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

class Job final : public Task {
 public:
  explicit Job(std::function<void()> work) : work_(std::move(work)) {}
  void run() override { work_(); }

 private:
  std::function<void()> work_;
};

// Notes the result, then calls `then`.
class Noted final : public Completion {
 public:
  explicit Noted(std::function<void()> then = [] {}) : then_(std::move(then)) {}
  void complete(int value) override {
    result = value;
    ++times;
    then_();
  }
  int result = 0;
  int times = 0;

 private:
  std::function<void()> then_;
};

struct Sockets {
  Sockets() {
    std::array<int, 2> pair;
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0);
    ours.reset(pair[0]);
    theirs.reset(pair[1]);
  }
  UniqueFd ours;
  UniqueFd theirs;
};

struct Fixture {
  Fixture() : ring(*Ring::create()) {}
  // Runs `start` on the ring's thread, and the ring until somebody stops it.
  void run(std::function<void()> start) {
    Job job(std::move(start));
    ring->post(job);
    REQUIRE(ring->run());
  }
  std::unique_ptr<Ring> ring;
};

MutableByteSpan writable(std::string& text) {
  return {reinterpret_cast<std::byte*>(text.data()), text.size()};
}

TEST_CASE("ring: reads a file at an offset, short at its end, nothing behind it") {
  const TempFolder folder;
  const UniqueFd file(::open(folder.write("a", "0123456789").c_str(), O_RDONLY | O_CLOEXEC));
  Fixture fixture;
  std::string middle(4, '-');
  std::string end(4, '-');
  std::string behind(4, '-');
  Noted last([&] { fixture.ring->stop(); });
  Noted first;
  Noted second([&] { fixture.ring->read(file.get(), 100, writable(behind), last); });
  fixture.run([&] {
    fixture.ring->read(file.get(), 3, writable(middle), first);
    fixture.ring->read(file.get(), 8, writable(end), second);
  });
  CHECK(first.result == 4);
  CHECK(middle == "3456");
  CHECK(second.result == 2);
  CHECK(end == "89--");
  CHECK(last.result == 0);
  CHECK(behind == "----");
}

TEST_CASE("ring: a failed operation completes with its errno") {
  Fixture fixture;
  std::string out(4, '-');
  Noted noted([&] { fixture.ring->stop(); });
  fixture.run([&] { fixture.ring->read(-1, 0, writable(out), noted); });
  CHECK(noted.result == -EBADF);
  CHECK(noted.times == 1);
}

TEST_CASE("ring: a timeout completes with ETIME, and not sooner") {
  Fixture fixture;
  __kernel_timespec storage;
  Noted noted([&] { fixture.ring->stop(); });
  const auto begun = steady_clock::now();
  fixture.run([&] { fixture.ring->timeout(milliseconds(60), storage, noted); });
  CHECK(noted.result == -ETIME);
  CHECK(steady_clock::now() - begun >= milliseconds(60));
}

TEST_CASE("ring: what is cancelled completes once, with ECANCELED") {
  Fixture fixture;
  Sockets sockets;
  __kernel_timespec storage;
  std::string out(4, '-');
  int left = 2;
  const auto one_less = [&] {
    if (--left == 0) fixture.ring->stop();
  };
  Noted timeout(one_less);
  Noted receive(one_less);
  const auto begun = steady_clock::now();
  fixture.run([&] {
    fixture.ring->timeout(std::chrono::hours(1), storage, timeout);
    fixture.ring->receive(sockets.ours.get(), writable(out), receive);
    fixture.ring->cancel(timeout);
    fixture.ring->cancel(receive);
  });
  CHECK(timeout.result == -ECANCELED);
  CHECK(receive.result == -ECANCELED);
  CHECK(timeout.times == 1);
  CHECK(receive.times == 1);
  CHECK(steady_clock::now() - begun < std::chrono::seconds(10));
}

TEST_CASE("ring: cancelling what has completed changes nothing") {
  Fixture fixture;
  __kernel_timespec first_storage;
  __kernel_timespec second_storage;
  Noted second([&] { fixture.ring->stop(); });
  Noted first([&] {
    fixture.ring->cancel(first);
    fixture.ring->timeout(milliseconds(20), second_storage, second);
  });
  fixture.run([&] { fixture.ring->timeout(milliseconds(1), first_storage, first); });
  CHECK(first.times == 1);
  CHECK(second.result == -ETIME);
}

TEST_CASE("ring: a message goes out whole, however small the socket's buffer is") {
  Fixture fixture;
  Sockets sockets;
  const std::string head(100'000, 'h');
  const std::string tail(900'000, 't');
  std::array<iovec, 2> parts = {iovec{const_cast<char*>(head.data()), head.size()},
                                iovec{const_cast<char*>(tail.data()), tail.size()}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  std::string got;
  std::thread reader([&] {
    std::array<char, 4096> part;
    while (got.size() < head.size() + tail.size()) {
      const ssize_t count = ::recv(sockets.theirs.get(), part.data(), part.size(), 0);
      if (count <= 0) return;
      got.append(part.data(), static_cast<size_t>(count));
    }
  });
  Noted noted([&] { fixture.ring->stop(); });
  fixture.run([&] { fixture.ring->send(sockets.ours.get(), message, noted); });
  reader.join();
  CHECK(noted.result == 1'000'000);
  CHECK((got == head + tail));
}

TEST_CASE("ring: sending to a client that has left is an error, not a signal") {
  Fixture fixture;
  Sockets sockets;
  sockets.theirs.reset();
  std::string text = "lost";
  iovec part{text.data(), text.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  Noted noted([&] { fixture.ring->stop(); });
  fixture.run([&] { fixture.ring->send(sockets.ours.get(), message, noted); });
  CHECK(noted.result == -EPIPE);
}

TEST_CASE("ring: receives what a client said, and then its end") {
  Fixture fixture;
  Sockets sockets;
  REQUIRE(::send(sockets.theirs.get(), "hello", 5, 0) == 5);
  sockets.theirs.reset();
  std::string out(100, '-');
  Noted end([&] { fixture.ring->stop(); });
  Noted hello([&] { fixture.ring->receive(sockets.ours.get(), writable(out), end); });
  fixture.run([&] { fixture.ring->receive(sockets.ours.get(), writable(out), hello); });
  CHECK(hello.result == 5);
  CHECK(out.substr(0, 6) == "hello-");
  CHECK(end.result == 0);
}

TEST_CASE("ring: what is readable is said, and nothing is taken") {
  Fixture fixture;
  Sockets sockets;
  std::string out(5, '-');
  Noted ready([&] { fixture.ring->stop(); });
  std::thread client([&] {
    std::this_thread::sleep_for(milliseconds(20));
    (void)!::send(sockets.theirs.get(), "hello", 5, 0);
  });
  fixture.run([&] { fixture.ring->wait_readable(sockets.ours.get(), ready); });
  client.join();
  CHECK(ready.result > 0);
  CHECK(::recv(sockets.ours.get(), out.data(), out.size(), MSG_DONTWAIT) == 5);
  CHECK(out == "hello");
}

TEST_CASE("ring: the end of a stream is readable, too") {
  Fixture fixture;
  Sockets sockets;
  Noted ready([&] { fixture.ring->stop(); });
  sockets.theirs.reset();
  fixture.run([&] { fixture.ring->wait_readable(sockets.ours.get(), ready); });
  CHECK(ready.result > 0);
}

std::chrono::nanoseconds thread_cpu_time() {
  timespec used{};
  REQUIRE(::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) == 0);
  return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
}

TEST_CASE("ring: a thread that may poll does so only where work comes soon") {
  Fixture fixture;
  fixture.ring->poll_before_sleep(milliseconds(1));
  std::vector<std::unique_ptr<Job>> jobs(200);
  size_t left = jobs.size();
  for (auto& job : jobs) {
    job = std::make_unique<Job>([&] {
      if (--left == 0) fixture.ring->stop();
    });
  }
  std::thread other([&] {
    for (const auto& job : jobs) {
      fixture.ring->post(*job);
      std::this_thread::sleep_for(milliseconds(5));
    }
  });
  const auto before = thread_cpu_time();
  REQUIRE(fixture.ring->run());
  const auto used = thread_cpu_time() - before;
  other.join();
  CHECK(left == 0);
  // Looking for the whole millisecond each time would take 200 ms.
  CHECK(used < milliseconds(100));
}

TEST_CASE("ring: accepts a client, with a descriptor that programs do not inherit") {
  const TempFolder folder;
  const UniqueFd listening(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = folder.path("socket");
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const auto* any = reinterpret_cast<const sockaddr*>(&address);
  REQUIRE(::bind(listening.get(), any, sizeof(address)) == 0);
  REQUIRE(::listen(listening.get(), 1) == 0);
  REQUIRE(::connect(client.get(), any, sizeof(address)) == 0);
  Fixture fixture;
  Noted noted([&] { fixture.ring->stop(); });
  fixture.run([&] { fixture.ring->accept(listening.get(), noted); });
  REQUIRE(noted.result >= 0);
  const UniqueFd accepted(noted.result);
  CHECK((::fcntl(accepted.get(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("ring: tasks of other threads all run on the ring's thread, in each one's order") {
  Fixture fixture;
  constexpr int kThreads = 4;
  constexpr int kEach = 500;
  std::array<std::vector<int>, kThreads> ran;
  const std::thread::id ring_thread = std::this_thread::get_id();
  int left = kThreads * kEach;
  std::vector<std::unique_ptr<Job>> jobs;
  for (int i = 0; i < kThreads * kEach; ++i) {
    jobs.push_back(std::make_unique<Job>([&, i] {
      CHECK(std::this_thread::get_id() == ring_thread);
      ran[static_cast<size_t>(i / kEach)].push_back(i);
      if (--left == 0) fixture.ring->stop();
    }));
  }
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < kEach; ++i) {
        fixture.ring->post(*jobs[static_cast<size_t>(thread * kEach + i)]);
      }
    });
  }
  REQUIRE(fixture.ring->run());
  for (std::thread& thread : threads) thread.join();
  for (const auto& list : ran) {
    CHECK(list.size() == kEach);
    CHECK(std::is_sorted(list.begin(), list.end()));
  }
}

TEST_CASE("ring: stop from another thread lets the tasks posted before run") {
  Fixture fixture;
  bool ran = false;
  Job job([&] { ran = true; });
  std::thread other([&] {
    std::this_thread::sleep_for(milliseconds(30));
    fixture.ring->post(job);
    fixture.ring->stop();
  });
  REQUIRE(fixture.ring->run());
  other.join();
  CHECK(ran);
}

TEST_CASE("ring: what was cancelled just before the stop does not outlive it") {
  Fixture fixture;
  Sockets sockets;
  std::string out(4, '-');
  Noted receive;
  __kernel_timespec storage;
  Noted later([&] {
    fixture.ring->cancel(receive);
    fixture.ring->stop();
  });
  fixture.run([&] {
    fixture.ring->receive(sockets.ours.get(), writable(out), receive);
    fixture.ring->timeout(milliseconds(10), storage, later);
  });
  CHECK(receive.result == -ECANCELED);
  CHECK(receive.times == 1);
}

TEST_CASE("ring: a deferred task runs after the completions at hand, once for many") {
  Fixture fixture;
  std::array<std::unique_ptr<Noted>, 32> timeouts;
  std::array<__kernel_timespec, 32> storage;
  size_t completed = 0;
  bool deferred = false;
  size_t runs = 0;
  Job job([&] {
    deferred = false;
    ++runs;
    if (completed == timeouts.size()) fixture.ring->stop();
  });
  for (auto& timeout : timeouts) {
    timeout = std::make_unique<Noted>([&] {
      ++completed;
      if (!deferred) fixture.ring->defer(job);
      deferred = true;
    });
  }
  fixture.run([&] {
    for (size_t i = 0; i < timeouts.size(); ++i) {
      fixture.ring->timeout(milliseconds(0), storage[i], *timeouts[i]);
    }
  });
  CHECK(completed == timeouts.size());
  CHECK(runs < completed);
}

TEST_CASE("ring: more operations at a time than it has entries") {
  const TempFolder folder;
  const UniqueFd file(::open(folder.write("a", std::string(4096, 'f')).c_str(), O_RDONLY));
  Fixture fixture;
  constexpr size_t kReads = 5000;
  std::string out(kReads, '-');
  size_t left = kReads;
  std::vector<std::unique_ptr<Noted>> reads;
  fixture.run([&] {
    for (size_t i = 0; i < kReads; ++i) {
      reads.push_back(std::make_unique<Noted>([&] {
        if (--left == 0) fixture.ring->stop();
      }));
      fixture.ring->read(file.get(), i % 4096, writable(out).subspan(i, 1), *reads.back());
    }
  });
  CHECK((out == std::string(kReads, 'f')));
  for (const auto& read : reads) CHECK(read->times == 1);
}

}  // namespace
}  // namespace underlay
