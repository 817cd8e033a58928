#include "io/http/object_writer.h"

#include <algorithm>
#include <cerrno>
#include <thread>
#include <vector>

#include "io/http/multipart_writer.h"
#include "io/http/put_writer.h"

namespace underlay {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kPiece = 1 << 20;                // bytes
constexpr milliseconds kLook{100};                // how often an interruption is looked for
constexpr std::chrono::minutes kLongestDelay{5};  // a server that wants more of it has failed

Result<void> write_all(ObjectWriter& object, uint64_t size, const ReadBytes& read) {
  object.set_size(size);
  std::vector<std::byte> piece(std::min<uint64_t>(kPiece, size));
  for (uint64_t offset = 0; offset < size; offset += piece.size()) {
    piece.resize(std::min<uint64_t>(piece.size(), size - offset));
    TRY(read(offset, piece));
    TRY(object.append(piece));
  }
  return object.finish();
}

Result<void> wait(milliseconds time, const WriteSettings& settings) {
  for (const auto until = Clock::now() + time; Clock::now() < until;) {
    if (settings.interrupted()) return fail_errno(EINTR, "interrupted");
    std::this_thread::sleep_for(kLook);
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<ObjectWriter>> create_object(const std::string& name,
                                                    WriteSettings settings) {
  HttpTarget target = TRY(http_target(name));
  if (target.is_store()) return make_multipart_writer(std::move(target), std::move(settings));
  return make_put_writer(std::move(target), std::move(settings));
}

Result<void> send_object(const std::string& name, uint64_t size, const ReadBytes& read,
                         const WriteSettings& settings) {
  for (unsigned tries = 1;; ++tries) {
    const auto object = TRY(create_object(name, settings));
    auto written = write_all(*object, size, read);
    if (written) return {};
    const auto delay = object->retry_after(tries);
    if (!delay) return written;
    if (tries >= settings.limits.tries || *delay > kLongestDelay) {
      Error error = std::move(written).error();
      error.message += fmt::format(" (tried {} times)", tries);
      return Failure(std::move(error));
    }
    TRY(wait(*delay, settings));
  }
}

}  // namespace underlay
