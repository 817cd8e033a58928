// Any bytes as a message of a hand-over: what is understood is within its bounds, and means the
// same when it is said again. Aborts when a rule breaks.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "server/handover_message.h"
#include "server/limits.h"

namespace underlay::handover {
namespace {

void require(bool holds, const char* rule) {
  if (holds) return;
  std::fprintf(stderr, "broken rule: %s\n", rule);
  std::abort();
}

void run(ByteSpan packet) {
  const auto message = decode(packet);
  if (!message) {
    const std::string line = message.error().to_string();
    return require(!line.empty() && line.find('\n') == std::string::npos, "one line says why");
  }
  const std::vector<std::byte> again = encode(*message);
  require(again.size() <= kMaxMessage, "no message is too long");
  const auto second = decode(again);
  require(second && encode(*second) == again, "a message means what it says");
  const auto* state = std::get_if<SessionState>(&*message);
  if (state == nullptr) return;
  require(state->input.size() <= limits::kReceiveBuffer, "the input fits into a session");
  require(state->content.name.size() <= nbd::kMaxString, "a name is a string");
  require(!state->negotiated.extended || state->negotiated.structured, "extended is structured");
}

}  // namespace
}  // namespace underlay::handover

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  underlay::handover::run(std::as_bytes(std::span(data, size)));
  return 0;
}
