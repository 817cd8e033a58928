// What a ring does when the kernel takes no operations.
#include <doctest/doctest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#include "io/ring.h"

namespace underlay {
namespace {

// From now on the calling thread's io_uring_enter() fails with `error`.
void refuse_operations(int error) {
  std::array filter = {
      sock_filter(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))),
      sock_filter(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 0, 1)),
      sock_filter(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error))),
      sock_filter(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)),
  };
  const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
  REQUIRE(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  REQUIRE(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

class Ignored final : public Completion {
 public:
  void complete(int) override {}
};

class AskForMuch final : public Task {
 public:
  AskForMuch(Ring& ring, int error, size_t count)
      : ring_(ring), error_(error), timeouts_(count), storage_(count) {}
  void run() override {
    refuse_operations(error_);
    for (size_t i = 0; i < timeouts_.size(); ++i) {
      ring_.timeout(std::chrono::hours(1), storage_[i], timeouts_[i]);
    }
  }

 private:
  Ring& ring_;
  int error_;
  std::vector<Ignored> timeouts_;
  std::vector<__kernel_timespec> storage_;
};

// What run() says when the kernel refuses while `count` operations are asked for.
Result<void> run_refused(int error, size_t count) {
  // The ring goes before what it may still complete into.
  std::unique_ptr<Ring> ring = *Ring::create();
  AskForMuch task(*ring, error, count);
  Result<void> result;
  std::thread thread([&] {
    ring->post(task);
    result = ring->run();
  });
  thread.join();
  ring.reset();
  return result;
}

void check_fails(int error, size_t count) {
  const auto begun = std::chrono::steady_clock::now();
  const Result<void> result = run_refused(error, count);
  REQUIRE_FALSE(result);
  CHECK(result.error().sys_errno == error);
  const std::string line = result.error().to_string();
  CHECK_MESSAGE(line.find("io_uring") != std::string::npos, line);
  CHECK_MESSAGE(line.find("memory") != std::string::npos, line);
  CHECK(std::chrono::steady_clock::now() - begun < std::chrono::seconds(60));
}

TEST_CASE("ring: a kernel that refuses for good ends run(), however much is asked for") {
  for (const size_t count : {size_t{1}, size_t{2000}}) {
    INFO(count);
    check_fails(EPERM, count);
  }
}

TEST_CASE("ring: a kernel that always says 'later' ends run() as well") {
  check_fails(EAGAIN, 2000);
}

}  // namespace
}  // namespace underlay
