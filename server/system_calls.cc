#include "server/system_calls.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <span>
#include <type_traits>

namespace underlay {
namespace {

// What serving takes, whatever the arguments.
constexpr std::array kAlways = {
    // bytes of files and clients
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(preadv),
    SCMP_SYS(preadv2),
    SCMP_SYS(sendfile),
    SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(lseek),
    SCMP_SYS(fadvise64),
    SCMP_SYS(readahead),
    // what is known of them; names that images have are looked up, too
    SCMP_SYS(fstat),
    SCMP_SYS(stat),
    SCMP_SYS(lstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(statx),
    SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),
    SCMP_SYS(getcwd),
    SCMP_SYS(access),
    SCMP_SYS(faccessat),
    SCMP_SYS(faccessat2),
    SCMP_SYS(fcntl),
    SCMP_SYS(close),
    SCMP_SYS(dup),
    SCMP_SYS(dup2),
    SCMP_SYS(dup3),
    // clients; listen() names this process to a successor
    SCMP_SYS(accept4),
    SCMP_SYS(listen),
    SCMP_SYS(shutdown),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(io_uring_enter),
    SCMP_SYS(io_uring_register),
    SCMP_SYS(eventfd2),
    // memory
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    // threads and time
    SCMP_SYS(futex),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),  // where the kernel maps no clock into processes
    SCMP_SYS(getrandom),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(uname),
    SCMP_SYS(sysinfo),
};

// cachestat, which libseccomp 2.5 does not know by name.
constexpr int kCachestat = 451;

class Filter {
 public:
  Filter() : context_(seccomp_init(SCMP_ACT_ERRNO(EPERM))) {}

  void allow(int call) { add(SCMP_ACT_ALLOW, call, {}); }
  void allow(int call, scmp_arg_cmp when) { add(SCMP_ACT_ALLOW, call, {&when, 1}); }
  void answer(int error, int call) { add(SCMP_ACT_ERRNO(static_cast<uint16_t>(error)), call, {}); }

  Result<void> load() {
    if (!context_) return fail(ErrorKind::kLimit, "no memory left for the seccomp filter");
    if (error_ == 0) error_ = seccomp_load(context_.get());
    if (error_ == 0) return {};
    return fail_errno(-error_,
                      "this system takes no seccomp filter; --sandbox=off serves without it");
  }

 private:
  struct Release {
    void operator()(void* context) const { seccomp_release(context); }
  };

  void add(uint32_t action, int call, std::span<const scmp_arg_cmp> when) {
    if (!context_ || error_ != 0) return;
    error_ = seccomp_rule_add_array(context_.get(), action, call,
                                    static_cast<unsigned>(when.size()), when.data());
  }

  std::unique_ptr<std::remove_pointer_t<scmp_filter_ctx>, Release> context_;
  int error_ = 0;
};

scmp_arg_cmp argument(unsigned index, scmp_compare how, uint64_t a, uint64_t b = 0) {
  return {.arg = index, .op = how, .datum_a = a, .datum_b = b};
}

// Are none of these bits set in the argument?
scmp_arg_cmp without(unsigned index, uint64_t bits) {
  return argument(index, SCMP_CMP_MASKED_EQ, bits, 0);
}

}  // namespace

Result<void> allow_only(const SystemCallPlan& plan) {
  Filter filter;
  for (const int call : kAlways) filter.allow(call);
  filter.allow(kCachestat);
  // No code is loaded any more.
  filter.allow(SCMP_SYS(mmap), without(2, PROT_EXEC));
  filter.allow(SCMP_SYS(mprotect), without(2, PROT_EXEC));
  // Threads, but no processes. The arguments of clone3 cannot be seen: the C library then tries
  // clone.
  filter.allow(SCMP_SYS(clone), argument(0, SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
  filter.answer(ENOSYS, SCMP_SYS(clone3));
  filter.allow(SCMP_SYS(prctl), argument(0, SCMP_CMP_EQ, PR_SET_NAME));
  filter.allow(SCMP_SYS(prlimit64), argument(2, SCMP_CMP_EQ, 0));
  // Signals to itself: abort(), and the end that it gives itself.
  filter.allow(SCMP_SYS(kill), argument(0, SCMP_CMP_EQ, static_cast<uint64_t>(::getpid())));
  filter.allow(SCMP_SYS(tgkill), argument(0, SCMP_CMP_EQ, static_cast<uint64_t>(::getpid())));
  if (plan.writes_files) {
    for (const int call :
         {SCMP_SYS(openat), SCMP_SYS(pwrite64), SCMP_SYS(utimensat), SCMP_SYS(fdatasync)}) {
      filter.allow(call);
    }
  }
  if (plan.opens_files || plan.writes_files || plan.kernel_device) {
    constexpr uint64_t kWriting = O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
    if (!plan.writes_files) filter.allow(SCMP_SYS(openat), without(2, kWriting));
    filter.allow(SCMP_SYS(openat2));  // its flags cannot be seen; Landlock lets nothing be written
    filter.allow(SCMP_SYS(getdents64));
    filter.allow(SCMP_SYS(ioctl), argument(1, SCMP_CMP_EQ, BLKGETSIZE64));
  }
  if (plan.connects) {
    for (const int family : {AF_INET, AF_INET6}) {
      filter.allow(SCMP_SYS(socket), argument(0, SCMP_CMP_EQ, static_cast<uint64_t>(family)));
    }
    filter.allow(SCMP_SYS(connect));
    // The look-up of names: a thread that does it wakes the one that waits.
    filter.allow(SCMP_SYS(socketpair));
    filter.allow(SCMP_SYS(sendmmsg));
    filter.allow(SCMP_SYS(ioctl), argument(1, SCMP_CMP_EQ, FIONREAD));
  }
  if (plan.removes_files || plan.writes_files) {
    filter.allow(SCMP_SYS(unlink));
    filter.allow(SCMP_SYS(unlinkat));
  }
  return filter.load();
}

}  // namespace underlay
