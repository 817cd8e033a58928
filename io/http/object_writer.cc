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

constexpr size_t kPiece = 1 << 20;  // bytes
constexpr milliseconds kLook{100};  // how often an interruption is looked for

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

// An error has what is to be added to that of the try that failed.
Result<void> check_next_try(milliseconds delay, unsigned tries, const HttpLimits& limits) {
  if (tries >= limits.tries) return fail(ErrorKind::kIo, " (tried {} times)", tries);
  if (delay <= limits.most_retry_after) return {};
  return fail(ErrorKind::kIo, " (it wants {} s until the next try, of at most {}: try later)",
              std::chrono::ceil<std::chrono::seconds>(delay).count(),
              limits.most_retry_after.count());
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
    if (auto allowed = check_next_try(*delay, tries, settings.limits); !allowed) {
      written.error().message += allowed.error().message;
      return written;
    }
    TRY(wait(*delay, settings));
  }
}

}  // namespace underlay
