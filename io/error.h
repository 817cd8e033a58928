// Errors as values. Result<T> is the return type of everything that can fail below the programs'
// mains; exceptions stay inside third-party calls.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace underlay {

enum class ErrorKind : uint8_t {
  kIo,           // the system failed; sys_errno says how
  kNotFound,     // no such file, export or snapshot
  kDenied,       // a rule of trust or a permission forbids it
  kMalformed,    // the bytes contradict their specification
  kTruncated,    // bytes that must be there lie beyond the end of the file
  kUnsupported,  // valid, but not served by this program
  kLimit,        // above a named budget
  kUsage,        // the operator asked for something that cannot be
  kWouldBlock,   // the answer needs I/O or much CPU: ask again where blocking is allowed
};

// One failure: what happened, in which file, where in it. Cheap to make without a message, so that
// kWouldBlock may travel on the hot path.
struct Error {
  ErrorKind kind = ErrorKind::kIo;
  int sys_errno = 0;               // 0 when no system call failed
  std::string file;                // the file it concerns, "" when none
  std::optional<uint64_t> offset;  // byte in that file
  std::string message;             // names field, value, limit and what to do; no newline

  // One printable line: "FILE: message (at byte N): strerror". Control bytes, which may come from
  // an image, are escaped.
  std::string to_string() const;
};

// A copy of `text` that is safe on a terminal and in a log: control bytes and invalid UTF-8 become
// \xNN, and it is cut after `max_bytes`.
std::string printable(std::string_view text, size_t max_bytes = 4096);

// A value or an Error. [[nodiscard]] so that no failure is dropped.
template <class T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
};

using Failure = tl::unexpected<Error>;

// Makes the error arm of a Result: `return fail(ErrorKind::kMalformed, "{}: ...", value);`
template <class... Args>
Failure fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  return Failure(Error{.kind = kind,
                       .sys_errno = 0,
                       .file = {},
                       .offset = std::nullopt,
                       .message = fmt::format(format, std::forward<Args>(args)...)});
}

// The same for a failed system call, with the errno it left.
template <class... Args>
Failure fail_errno(int sys_errno, fmt::format_string<Args...> format, Args&&... args) {
  return Failure(Error{.kind = ErrorKind::kIo,
                       .sys_errno = sys_errno,
                       .file = {},
                       .offset = std::nullopt,
                       .message = fmt::format(format, std::forward<Args>(args)...)});
}

// What MapFor::kReadNow answers when it would have to wait. Does not allocate.
inline Failure would_block() {
  Error error;
  error.kind = ErrorKind::kWouldBlock;
  return Failure(std::move(error));
}

// Prepends context on the way up: "reading the L2 table: " + message.
Failure with_context(Error error, std::string_view context);
inline Failure with_context(Failure failure, std::string_view context) {
  return with_context(std::move(failure.value()), context);
}

// Names the file (and byte) an error concerns, unless a deeper layer did already.
Failure in_file(Error error, std::string_view file, std::optional<uint64_t> offset = std::nullopt);
inline Failure in_file(Failure failure, std::string_view file,
                       std::optional<uint64_t> offset = std::nullopt) {
  return in_file(std::move(failure.value()), file, offset);
}

// Runs `work`, a function that returns a Result, where no exception may escape: having no memory
// becomes an error.
template <class Work>
auto without_exceptions(Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return fail(ErrorKind::kLimit, "no memory left");
  }
}

namespace detail {
template <class T>
T take(Result<T>&& result) {
  return std::move(*result);
}
inline void take(Result<void>&&) {}
}  // namespace detail

// TRY(expr): the value of a Result, or return its error from the enclosing function. Not behind
// other members in a braced initialiser: GCC 12 does not destroy those when it returns from there.
#define TRY(...)                                                                \
  __extension__({                                                               \
    auto try_result = (__VA_ARGS__);                                            \
    if (!try_result) return ::underlay::Failure(std::move(try_result).error()); \
    ::underlay::detail::take(std::move(try_result));                            \
  })

}  // namespace underlay
