#include "tools/thin/random_id.h"

#include <cerrno>
#include <fstream>

namespace underlay::thin {

Result<std::string> random_uuid() {
  constexpr const char* kSource = "/proc/sys/kernel/random/uuid";
  constexpr size_t kLength = 36;
  std::ifstream file(kSource);
  std::string uuid;
  if (!std::getline(file, uuid) || uuid.size() != kLength) {
    return in_file(fail(ErrorKind::kIo, "cannot be read: is /proc mounted?"), kSource);
  }
  return uuid;
}

Result<std::string> random_id() {
  constexpr size_t kDigits = 8;
  return TRY(random_uuid()).substr(0, kDigits);
}

}  // namespace underlay::thin
