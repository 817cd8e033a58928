#include "tools/thin/unprivileged.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>

#include "tests/support/temp_folder.h"
#include "tools/thin/service_user.h"

namespace underlay::thin {
namespace {

using Work = std::function<Result<ChildMessage>()>;

std::string error_of(const Work& work, const ChildLimits& limits = {}) {
  const auto result = run_unprivileged("image", work, limits);
  // Whatever became of the child, it is not left behind.
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
  CHECK(errno == ECHILD);
  return result ? "no error" : result.error().to_string();
}

ChildMessage text(std::string bytes) {
  ChildMessage message;
  message.bytes = std::move(bytes);
  return message;
}

std::string answer_of(const std::function<std::string()>& work) {
  const auto result =
      run_unprivileged("image", [&]() -> Result<ChildMessage> { return text(work()); });
  return result ? result->bytes : result.error().to_string();
}

TEST_CASE("bytes and descriptors of the child arrive") {
  const TempFolder folder;
  std::filesystem::permissions(folder.path(), std::filesystem::perms(0755));
  const std::string path = folder.write("file", "content");
  const std::string long_text(3 << 20, 'x');
  const auto result = run_unprivileged("image", [&]() -> Result<ChildMessage> {
    ChildMessage message = text(long_text);
    for (int i = 0; i < 2; ++i) {
      message.descriptors.emplace_back(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    }
    return message;
  });
  REQUIRE(result);
  CHECK(result->bytes == long_text);
  REQUIRE(result->descriptors.size() == 2);
  std::string read(7, ' ');
  CHECK(::pread(result->descriptors[1].get(), read.data(), read.size(), 0) == 7);
  CHECK(read == "content");
  CHECK((::fcntl(result->descriptors[0].get(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("an error of the work arrives as it is") {
  const auto result = run_unprivileged("image", []() -> Result<ChildMessage> {
    return in_file(fail_errno(EIO, "cannot read\n"), "base", 4096);
  });
  REQUIRE_FALSE(result);
  CHECK(result.error().kind == ErrorKind::kIo);
  CHECK(result.error().sys_errno == EIO);
  CHECK(result.error().file == "base");
  CHECK(result.error().offset == 4096);
  CHECK(result.error().message == "cannot read\n");
  CHECK(error_of([]() -> Result<ChildMessage> { return fail(ErrorKind::kLimit, "no"); }) ==
        "image: no");
}

TEST_CASE("the child has no descriptors of its parent, and nothing on standard input") {
  const UniqueFd open_before(::open("/dev/null", O_RDONLY));
  const std::string open = answer_of([] {
    std::string numbers;
    for (int fd = 0; fd < 1024; ++fd) {
      if (::fcntl(fd, F_GETFD) >= 0) numbers += std::to_string(fd) + ' ';
    }
    char byte = 0;
    return numbers + std::to_string(::read(0, &byte, 1));
  });
  // The null device in place of the standard ones, and the socket.
  const auto count = std::count(open.begin(), open.end(), ' ');
  CHECK(open.starts_with("0 1 2 "));
  CHECK(open.ends_with(" 0"));
  CHECK(count == 4);
}

TEST_CASE("the child is the service user, where there is one, and can gain no rights") {
  const passwd* user = ::getpwnam(kServiceUser);
  const bool changes = ::geteuid() == 0 && user != nullptr;
  const uid_t expected = changes ? user->pw_uid : ::geteuid();
  CHECK(answer_of([] {
          uid_t real = 0, effective = 0, saved = 0;
          (void)::getresuid(&real, &effective, &saved);
          return fmt::format("{} {} {}", real, effective, saved);
        }) == fmt::format("{0} {0} {0}", expected));
  CHECK(unprivileged_user_words() == (changes ? " (as user underlay)" : ""));
  CHECK(answer_of([] {
          rlimit core{}, file{};
          (void)::getrlimit(RLIMIT_CORE, &core);
          (void)::getrlimit(RLIMIT_FSIZE, &file);
          return fmt::format("{} {} {}", ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), core.rlim_max,
                             file.rlim_max);
        }) == "1 0 0");
}

TEST_CASE("a child that crashes or ends without an answer is one clear error") {
  CHECK(error_of([]() -> Result<ChildMessage> {
          ::raise(SIGKILL);
          return text("");
        }) == "image: the process that reads it crashed (signal 9, Killed)");
  CHECK(error_of([]() -> Result<ChildMessage> { ::_exit(3); }) ==
        "image: the process that reads it ended with status 3 and no answer");
  CHECK(error_of([]() -> Result<ChildMessage> { ::_exit(0); }) ==
        "image: the process that reads it answers nothing");
}

TEST_CASE("a child that sends nonsense is one clear error") {
  for (const size_t length : {9u, 60u, 5000u}) {
    const std::string error = error_of([&]() -> Result<ChildMessage> {
      // The socket is the only descriptor that is open besides the standard ones.
      int socket = 3;
      while (::fcntl(socket, F_GETFD) < 0) ++socket;
      const std::string nonsense(length, length == 60 ? '\0' : 'n');
      (void)!::write(socket, nonsense.data(), nonsense.size());
      ::_exit(0);
    });
    CHECK(error == "image: the process that reads it answers nonsense");
  }
}

TEST_CASE("a child is ended at the limits of time, processor, memory and message") {
  using namespace std::chrono_literals;
  const auto start = std::chrono::steady_clock::now();
  CHECK(error_of(
            []() -> Result<ChildMessage> {
              while (true) ::pause();
            },
            {.time = 100ms}) == "image: the process that reads it does not end in time");
  CHECK(std::chrono::steady_clock::now() - start < 5s);
  CHECK(error_of(
            []() -> Result<ChildMessage> {
              volatile uint64_t count = 0;
              while (true) count = count + 1;
            },
            {.processor = 1s}) == "image: the process that reads it needs too much processor time");
  // A sanitizer ends the process instead of throwing.
  CHECK(error_of([]() -> Result<ChildMessage> {
          const std::string large(uint64_t{1} << 30, 'x');
          return text(large.substr(0, 10));
        }).starts_with("image: "));
  CHECK(error_of([]() -> Result<ChildMessage> { return text(std::string(2 << 20, 'x')); },
                 {.message_bytes = 1 << 20}) ==
        "image: the process that reads it answers more than 1048576 bytes or 128 files");
  CHECK(error_of(
            []() -> Result<ChildMessage> {
              ChildMessage message;
              for (int i = 0; i < 3; ++i) message.descriptors.emplace_back(::dup(0));
              return message;
            },
            {.descriptors = 2})
            .starts_with("image: the process that reads it answers more than"));
}

}  // namespace
}  // namespace underlay::thin
