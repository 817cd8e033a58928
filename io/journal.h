// The journal of systemd, in its native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL): a
// datagram for each entry. Without libsystemd, whose sd_journal_sendv() opens its socket when it is
// first used, where the cage forbids it, and waits for a journal that does not keep up.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/error.h"
#include "io/unique_fd.h"

namespace underlay {

// Of an entry. `name` is of capitals, digits and "_", as systemd.journal-fields(7) has it; the
// value may have any bytes.
struct LogField {
  std::string_view name;
  std::string value;
};
using LogFields = std::vector<LogField>;

// As syslog(3) counts them.
enum class LogPriority : uint8_t { kError = 3, kWarning = 4, kNotice = 5, kInfo = 6 };

// The datagram of an entry.
std::string journal_entry(std::string_view identifier, LogPriority priority,
                          std::string_view message, const LogFields& fields);

// Thread-safe.
class Journal {
 public:
  static constexpr const char* kSocket = "/run/systemd/journal/socket";

  // No journal: it takes nothing.
  Journal() = default;
  // Connects to the journal that listens at `path`, so that send() works in the cage as well.
  static Result<Journal> connect(const std::string& path = kSocket);

  // Never waits. False when the journal has not got the entry: it is gone, or busy.
  bool send(const std::string& entry) const;

 private:
  explicit Journal(UniqueFd socket) : socket_(std::move(socket)) {}

  UniqueFd socket_;
};

// Whether the manager that started this process put its standard error into the journal
// ($JOURNAL_STREAM, see systemd.exec(5)), and it is still there.
bool stderr_is_journal();

}  // namespace underlay
