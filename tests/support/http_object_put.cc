// http-object-put: writes an object on a server as io/http does, for tests.
//   http-object-put NAME EXPECTED PIECE RANGE_MS [GIVE_UP_AT]
// The object is what comes from standard input, appended in pieces of that many bytes; EXPECTED:
// WriteSettings::expected, or =SIZE: that is the size, and is stated. RANGE_MS: HttpLimits::range,
// a quarter of which is that for a stall. GIVE_UP_AT: behind so many bytes it is left unfinished;
// "end": behind the last one it is interrupted.
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "io/http/object_writer.h"

namespace underlay {
namespace {

Result<void> run(const std::vector<std::string>& words) {
  WriteSettings settings;
  const bool states_size = words.at(1).starts_with('=');
  settings.expected = std::stoull(words.at(1).substr(states_size ? 1 : 0));
  settings.limits.range = std::chrono::milliseconds(std::stoul(words.at(3)));
  settings.limits.connect = settings.limits.range;
  settings.limits.stall = std::chrono::ceil<std::chrono::seconds>(settings.limits.range / 4);
  const std::string give_up = words.size() > 4 ? words.at(4) : "";
  const bool at_end = give_up == "end";
  const uint64_t give_up_at = give_up.empty() || at_end ? UINT64_MAX : std::stoull(give_up);
  bool interrupted = false;
  settings.interrupted = [&] { return interrupted; };
  const auto object = TRY(create_object(words.at(0), settings));
  if (states_size) object->set_size(settings.expected);
  std::vector<std::byte> piece(std::stoul(words.at(2)));
  for (uint64_t done = 0;;) {
    const size_t got = std::fread(piece.data(), 1, piece.size(), stdin);
    TRY(object->append(ByteSpan(piece).first(got)));
    done += got;
    if (done >= give_up_at) return fail(ErrorKind::kUsage, "given up");
    if (got == piece.size()) continue;
    interrupted = at_end;
    return object->finish();
  }
}

}  // namespace
}  // namespace underlay

int main(int argc, char** argv) {
  try {
    const auto result = underlay::run(std::vector<std::string>(argv + 1, argv + argc));
    if (!result) fmt::print(stderr, "{}\n", result.error().to_string());
    return result ? 0 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "http-object-put: {}\n", error.what());
    return 2;
  }
}
