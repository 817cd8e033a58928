#include "io/journal.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace underlay {
namespace {

void append(std::string& entry, std::string_view name, std::string_view value) {
  entry += name;
  if (value.find('\n') == std::string_view::npos) {
    entry += '=';
  } else {
    // Its length says where it ends, instead of the line.
    entry += '\n';
    const auto length = static_cast<uint64_t>(value.size());
    for (unsigned byte = 0; byte < sizeof(length); ++byte) {
      entry += static_cast<char>(length >> (8 * byte) & 0xff);
    }
  }
  entry += value;
  entry += '\n';
}

}  // namespace

std::string journal_entry(std::string_view identifier, LogPriority priority,
                          std::string_view message, const LogFields& fields) {
  std::string entry;
  append(entry, "MESSAGE", message);
  append(entry, "PRIORITY", std::to_string(static_cast<unsigned>(priority)));
  append(entry, "SYSLOG_IDENTIFIER", identifier);
  for (const LogField& field : fields) append(entry, field.name, field.value);
  return entry;
}

Result<Journal> Journal::connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return in_file(fail(ErrorKind::kUsage, "the path is too long for a Unix socket"), path);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return fail_errno(errno, "cannot make a socket");
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (::connect(socket.get(), generic, sizeof(address)) != 0) {
    return in_file(fail_errno(errno, "cannot reach the journal"), path);
  }
  return Journal(std::move(socket));
}

bool Journal::send(const std::string& entry) const {
  if (!socket_.valid()) return false;
  const ssize_t sent =
      ::send(socket_.get(), entry.data(), entry.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  return sent == static_cast<ssize_t>(entry.size());
}

bool stderr_is_journal() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat file {};
  if (stream == nullptr || ::fstat(STDERR_FILENO, &file) != 0) return false;
  return fmt::format("{}:{}", file.st_dev, file.st_ino) == stream;
}

}  // namespace underlay
