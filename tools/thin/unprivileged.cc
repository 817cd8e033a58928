#include "tools/thin/unprivileged.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <optional>

#include "tools/thin/message_fields.h"
#include "tools/thin/pidfd.h"
#include "tools/thin/service_user.h"
#include "tools/thin/steps.h"

namespace underlay::thin {
namespace {

using Clock = std::chrono::steady_clock;

Result<void> limit(__rlimit_resource resource, rlim_t soft, rlim_t hard, const char* name) {
  const rlimit value{.rlim_cur = soft, .rlim_max = hard};
  if (::setrlimit(resource, &value) != 0) return fail_errno(errno, "cannot limit its {}", name);
  return {};
}

// Addresses that this process has in use, bytes.
Result<uint64_t> address_space() {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen("/proc/self/statm", "re"),
                                                   std::fclose);
  unsigned long pages = 0;
  if (!file || std::fscanf(file.get(), "%lu", &pages) != 1) {
    return fail_errno(errno, "cannot read /proc/self/statm");
  }
  return uint64_t{pages} * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

// ---- in the child

Result<void> drop_descriptors(int& socket) {
  const int kept = ::fcntl(socket, F_DUPFD, 3);
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (kept < 0 || null < 0) return fail_errno(errno, "cannot open /dev/null");
  for (int fd = 0; fd < 3; ++fd) {
    if (::dup2(null, fd) < 0) return fail_errno(errno, "cannot replace descriptor {}", fd);
  }
  const auto number = static_cast<unsigned>(kept);
  if ((number > 3 && ::close_range(3, number - 1, 0) != 0) ||
      ::close_range(number + 1, ~0u, 0) != 0) {
    return fail_errno(errno, "cannot close its descriptors");
  }
  socket = kept;
  return {};
}

Result<void> limit_resources(const ChildLimits& limits) {
  const rlim_t memory = TRY(address_space()) + limits.memory;
  const auto seconds = static_cast<rlim_t>(limits.processor.count());
  TRY(limit(RLIMIT_AS, memory, memory, "memory"));
  TRY(limit(RLIMIT_CPU, seconds, seconds + 1, "processor time"));
  TRY(limit(RLIMIT_CORE, 0, 0, "core files"));
  TRY(limit(RLIMIT_FSIZE, 0, 0, "files"));
  if (!limits.starts_others) TRY(limit(RLIMIT_NPROC, 0, 0, "processes"));  // no effect as root
  return {};
}

Result<void> drop_rights(const std::optional<ServiceUser>& user, pid_t parent) {
  if (user) {
    if (::setgroups(user->groups.size(), user->groups.data()) != 0 ||
        ::setresgid(user->gid, user->gid, user->gid) != 0 ||
        ::setresuid(user->uid, user->uid, user->uid) != 0) {
      return fail_errno(errno, "cannot become the user {}", kServiceUser);
    }
    if (::setenv("HOME", user->home.c_str(), 1) != 0) return fail_errno(errno, "cannot set HOME");
  }
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return fail_errno(errno, "cannot give up gaining rights");
  }
  // After the change of the user, which takes it back.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
    return fail_errno(errno, "cannot end with its parent");
  if (::getppid() != parent) return fail(ErrorKind::kUsage, "its parent ended");
  return {};
}

std::string error_bytes(const Error& error) {
  FieldWriter fields;
  fields.number(0);
  fields.number(static_cast<uint64_t>(error.kind));
  fields.number(static_cast<uint64_t>(error.sys_errno));
  fields.number(error.offset ? 1 : 0);
  fields.number(error.offset.value_or(0));
  fields.text(std::string_view(error.file).substr(0, 4096));
  fields.text(std::string_view(error.message).substr(0, 16384));
  return std::move(fields).take();
}

// A byte that carries the descriptors, and the message.
bool send_message(int socket, const ChildMessage& message) {
  std::vector<int> numbers;
  for (const UniqueFd& fd : message.descriptors) numbers.push_back(fd.get());
  const size_t size = numbers.size() * sizeof(int);
  std::vector<char> control(CMSG_SPACE(size));
  char first = 0;
  iovec vector{.iov_base = &first, .iov_len = 1};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  if (!numbers.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(size);
    std::memcpy(CMSG_DATA(rights), numbers.data(), size);
  }
  if (::sendmsg(socket, &header, MSG_NOSIGNAL) != 1) return false;
  for (std::string_view rest = message.bytes; !rest.empty();) {
    const ssize_t sent = ::send(socket, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    rest.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

Result<ChildMessage> work_as_child(int& socket, const std::optional<ServiceUser>& user,
                                   pid_t parent, const std::function<Result<ChildMessage>()>& work,
                                   const ChildLimits& limits) {
  TRY(drop_descriptors(socket));
  TRY(limit_resources(limits));
  TRY(drop_rights(user, parent));
  return without_exceptions(work);
}

[[noreturn]] void be_child(int socket, const std::optional<ServiceUser>& user, pid_t parent,
                           const std::function<Result<ChildMessage>()>& work,
                           const ChildLimits& limits) {
  auto result = work_as_child(socket, user, parent, work, limits);
  ChildMessage message;
  if (result) {
    FieldWriter fields;
    fields.number(1);
    message = *std::move(result);
    message.bytes.insert(0, std::move(fields).take());
  } else {
    message.bytes = error_bytes(result.error());
  }
  ::_exit(send_message(socket, message) ? 0 : 1);
}

// ---- in the parent

// The child. Killed and waited for at the latest at the end of this object.
class Child {
 public:
  Child(pid_t pid, UniqueFd socket, Clock::time_point deadline)
      : pid_(pid), pidfd_(::pidfd_open(pid, 0)), socket_(std::move(socket)), deadline_(deadline) {}
  ~Child() {
    if (pid_ > 0) (void)end();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // All that it sends, until it closes its end.
  Result<ChildMessage> receive(const ChildLimits& limits) {
    ChildMessage message;
    while (true) {
      TRY(wait_for(socket_.get()));
      if (!TRY(receive_part(message))) break;
      if (message.bytes.size() > limits.message_bytes ||
          message.descriptors.size() > limits.descriptors) {
        return fail(ErrorKind::kLimit, "answers more than {} bytes or {} files",
                    limits.message_bytes, limits.descriptors);
      }
    }
    return message;
  }

  // Waits for its end; fails unless it ended well.
  Result<void> finish() {
    if (!pidfd_.valid()) return fail(ErrorKind::kUnsupported, "the kernel has no pidfd_open (5.3)");
    TRY(wait_for(pidfd_.get()));
    const int status = end();
    if (WIFSIGNALED(status)) {
      const int signal = WTERMSIG(status);
      if (signal == SIGXCPU) return fail(ErrorKind::kLimit, "needs too much processor time");
      return fail(ErrorKind::kIo, "crashed (signal {}, {})", signal, ::strsignal(signal));
    }
    if (WEXITSTATUS(status) != 0) {
      return fail(ErrorKind::kIo, "ended with status {} and no answer", WEXITSTATUS(status));
    }
    return {};
  }

 private:
  // The status that it ended with, at once.
  int end() {
    ::kill(pid_, SIGKILL);  // no effect when it has ended
    return wait_for_end(std::exchange(pid_, -1));
  }

  Result<void> wait_for(int fd) const {
    constexpr std::chrono::milliseconds kLookForSignals{100};
    while (true) {
      const auto rest = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - Clock::now());
      if (rest.count() <= 0) return fail(ErrorKind::kLimit, "does not end in time");
      if (interrupted()) return fail(ErrorKind::kUsage, "interrupted");
      pollfd poll{.fd = fd, .events = POLLIN, .revents = 0};
      const int ready = ::poll(&poll, 1, static_cast<int>(std::min(rest, kLookForSignals).count()));
      if (ready > 0) return {};
      if (ready < 0 && errno != EINTR) return fail_errno(errno, "cannot wait for it");
    }
  }

  // False at the end.
  Result<bool> receive_part(ChildMessage& message) {
    std::array<char, 64 << 10> part;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(253 * sizeof(int))> control;
    iovec vector{.iov_base = part.data(), .iov_len = part.size()};
    msghdr header{};
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
    if (got < 0) return errno == EINTR ? Result<bool>(true) : fail_errno(errno, "cannot hear it");
    take_descriptors(header, message.descriptors);
    if ((header.msg_flags & MSG_CTRUNC) != 0) {
      return fail(ErrorKind::kLimit, "its files could not be taken: too many are open");
    }
    message.bytes.append(part.data(), static_cast<size_t>(got));
    return got > 0;
  }

  static void take_descriptors(msghdr& header, std::vector<UniqueFd>& out) {
    for (cmsghdr* part = CMSG_FIRSTHDR(&header); part; part = CMSG_NXTHDR(&header, part)) {
      if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
      std::vector<int> numbers((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
      std::memcpy(numbers.data(), CMSG_DATA(part), numbers.size() * sizeof(int));
      for (const int number : numbers) out.emplace_back(number);
    }
  }

  pid_t pid_;
  UniqueFd pidfd_;
  UniqueFd socket_;
  Clock::time_point deadline_;
};

// The error of the work, as the child tells it.
Result<Error> error_of(FieldReader& fields) {
  Error error;
  const uint64_t kind = fields.number();
  error.kind = static_cast<ErrorKind>(kind);
  error.sys_errno = static_cast<int>(fields.number() & 0xfff);
  const bool has_offset = fields.number() != 0;
  const uint64_t offset = fields.number();
  if (has_offset) error.offset = offset;
  error.file = fields.text();
  error.message = fields.text();
  if (!fields.at_end() || kind > static_cast<uint64_t>(ErrorKind::kWouldBlock)) {
    return fail(ErrorKind::kMalformed, "answers nonsense");
  }
  return error;
}

Result<ChildMessage> answer_of(Child& child, const ChildLimits& limits) {
  auto message = child.receive(limits);
  if (!message) return message;
  TRY(child.finish());
  // The byte of the descriptors, then whether it worked.
  constexpr size_t kHead = 1 + sizeof(uint64_t);
  if (message->bytes.size() < kHead) return fail(ErrorKind::kMalformed, "answers nothing");
  message->bytes.erase(0, 1);
  if (FieldReader(message->bytes).number() > 1) {
    return fail(ErrorKind::kMalformed, "answers nonsense");
  }
  return message;
}

}  // namespace

Result<ChildMessage> run_unprivileged(const std::string& file,
                                      const std::function<Result<ChildMessage>()>& work,
                                      const ChildLimits& limits) {
  const auto user = TRY(service_user());
  std::array<int, 2> pair;
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
    return fail_errno(errno, "cannot make a socket pair");
  }
  UniqueFd ours(pair[0]), theirs(pair[1]);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "cannot fork");
  if (pid == 0) be_child(theirs.get(), user, parent, work, limits);
  theirs.reset();
  Child child(pid, std::move(ours), Clock::now() + limits.time);
  auto message = answer_of(child, limits);
  if (!message) {
    return in_file(with_context(std::move(message).error(), "the process that reads it "), file);
  }
  FieldReader fields(message->bytes);
  if (fields.number() == 1) {
    message->bytes.erase(0, sizeof(uint64_t));
    return message;
  }
  auto error = error_of(fields);
  if (!error) {
    return in_file(with_context(std::move(error).error(), "the process that reads it "), file);
  }
  return in_file(*std::move(error), file);
}

std::string unprivileged_user_words() {
  const auto user = service_user();
  return user && *user ? fmt::format(" (as user {})", kServiceUser) : "";
}

}  // namespace underlay::thin
