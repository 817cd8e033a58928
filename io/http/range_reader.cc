#include "io/http/range_reader.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <optional>
#include <string>

#include "io/http/http_request.h"

namespace underlay {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr long kReceiveBuffer = 128 << 10;  // bytes, of each transfer
constexpr long kMaxRedirects = 5;

// Of an error's document: enough for its code, and not worth a new connection if it is short.
constexpr size_t kMaxDocument = 16 << 10;

ReplyHead head_of(CURL* easy) {
  ReplyHead head;
  curl_options().get(easy, CURLINFO_RESPONSE_CODE, &head.status);
  head.content_range = reply_field(easy, "Content-Range");
  head.content_length = reply_field(easy, "Content-Length");
  head.etag = reply_field(easy, "ETag");
  head.last_modified = reply_field(easy, "Last-Modified");
  const time_t replied = curl_getdate(reply_field(easy, "Date").c_str(), nullptr);
  const time_t modified = curl_getdate(head.last_modified.c_str(), nullptr);
  // -1: no time.
  head.is_fresh = replied != -1 && modified != -1 && replied - modified < 2;
  return head;
}

}  // namespace

struct RangeReader::Transfer {
  CurlEasy easy;
  CurlList headers;
  std::array<char, CURL_ERROR_SIZE> reason{};

  uint64_t offset = 0;  // of `out`
  MutableByteSpan out;
  size_t got = 0;                  // bytes of it that are there
  const ObjectPin* pin = nullptr;  // null: is being opened

  enum class State : uint8_t { kWaiting, kRunning, kDone };
  State state = State::kWaiting;
  unsigned tries = 0;     // without a byte of it
  unsigned attempts = 0;  // all of them
  bool keys_renewed = false;
  Clock::time_point due;    // kWaiting: when it starts
  Clock::time_point begun;  // the first try
  Clock::time_point until;  // all tries

  // Of the try at hand.
  std::optional<JudgedReply> reply;
  size_t body = 0;        // bytes that came
  bool got_some = false;  // of the object
  std::string document;   // the front of an error's
  bool too_long = false;

  uint64_t next() const { return offset + got; }
  uint64_t last() const { return offset + out.size() - 1; }

  const JudgedReply& judge() {
    if (!reply) reply = judge_reply(head_of(easy.get()), next(), last(), pin);
    return *reply;
  }

  static size_t on_body(char* data, size_t one, size_t size, void* self) {
    assert(one == 1);
    (void)one;
    auto& transfer = *static_cast<Transfer*>(self);
    // No exception may pass through the library.
    const auto taken = without_exceptions([&] { return transfer.take({data, size}); });
    return taken ? size : CURL_WRITEFUNC_ERROR;
  }

  // A failure ends the transfer.
  Result<void> take(std::string_view part) {
    const bool bytes = judge().meaning == ReplyMeaning::kBytes;
    body += part.size();
    if (!bytes) {
      document.append(part.substr(0, kMaxDocument - std::min(kMaxDocument, document.size())));
      return body <= kMaxDocument ? Result<void>{} : fail(ErrorKind::kLimit, "");
    }
    too_long = body > reply->length;
    if (too_long) return fail(ErrorKind::kMalformed, "");
    std::ranges::copy(as_bytes(part), out.subspan(got).begin());
    got += part.size();
    got_some = got_some || !part.empty();
    return {};
  }
};

RangeReader::RangeReader(const HttpTarget& target, const HttpLimits& limits)
    : target_(target), limits_(limits), multi_(curl_multi_init()) {}

RangeReader::~RangeReader() { stop_all(); }

Result<ObjectPin> RangeReader::open(MutableByteSpan out) {
  auto transfer = std::make_unique<Transfer>();
  transfer->out = out;
  transfers_.push_back(std::move(transfer));
  auto done = run(limits_.opening_tries);
  const auto reply = std::move(transfers_.front()->reply);
  stop_all();
  if (!done) return Failure(std::move(done).error());
  return reply->pin;
}

Result<void> RangeReader::read(const ObjectPin& pin, uint64_t offset, MutableByteSpan out) {
  assert(range_within(offset, out.size(), pin.size));
  while (!out.empty()) {
    auto transfer = std::make_unique<Transfer>();
    transfer->offset = offset;
    transfer->out = out.first(std::min(out.size(), kHttpPieceBytes));
    transfer->pin = &pin;
    offset += transfer->out.size();
    out = out.subspan(transfer->out.size());
    transfers_.push_back(std::move(transfer));
  }
  auto done = run(limits_.tries);
  stop_all();
  return done;
}

// Until all have their bytes, or one has failed for good.
Result<void> RangeReader::run(unsigned tries) {
  object_changed_ = false;
  if (!multi_) return fail(ErrorKind::kLimit, "no memory left");
  const auto is_done = [](const auto& one) { return one->state == Transfer::State::kDone; };
  size_t running = 0;
  while (!std::ranges::all_of(transfers_, is_done)) {
    TRY(start_due(running));
    int active = 0;
    const CURLMcode performed = curl_multi_perform(multi_.get(), &active);
    if (performed != CURLM_OK) {
      return fail(ErrorKind::kIo, "libcurl: {}", curl_multi_strerror(performed));
    }
    const size_t before = running;
    TRY(take_finished(running, tries));
    if (running != before) continue;
    // Those that wait for their next try are looked at again as well.
    constexpr int kLook = 50;  // ms
    const bool waits = std::ranges::any_of(
        transfers_, [](const auto& one) { return one->state == Transfer::State::kWaiting; });
    (void)curl_multi_poll(multi_.get(), nullptr, 0, waits ? kLook : 1000, nullptr);
  }
  return {};
}

Result<void> RangeReader::start_due(size_t& running) {
  const auto now = Clock::now();
  for (const auto& transfer : transfers_) {
    if (running == kHttpParallel) break;
    if (transfer->state != Transfer::State::kWaiting || transfer->due > now) continue;
    TRY(start(*transfer));
    ++running;
  }
  return {};
}

Result<void> RangeReader::start(Transfer& transfer) {
  if (transfer.attempts++ == 0) {
    transfer.begun = Clock::now();
    transfer.until = transfer.begun + limits_.range;
  }
  ++transfer.tries;
  transfer.reply.reset();
  transfer.body = 0;
  transfer.got_some = false;
  transfer.document.clear();
  transfer.reason[0] = '\0';
  if (!transfer.easy && !idle_.empty()) {
    transfer.easy = std::move(idle_.back());
    idle_.pop_back();
  }
  if (!transfer.easy) transfer.easy.reset(curl_easy_init());
  if (!transfer.easy) return fail(ErrorKind::kLimit, "no memory left");
  TRY(prepare(transfer));
  const CURLMcode added = curl_multi_add_handle(multi_.get(), transfer.easy.get());
  if (added != CURLM_OK) {
    return fail(ErrorKind::kIo, "libcurl: {}", curl_multi_strerror(added));
  }
  transfer.state = Transfer::State::kRunning;
  return {};
}

Result<void> RangeReader::prepare(Transfer& transfer) {
  CURL* const easy = transfer.easy.get();
  const auto left = std::chrono::duration_cast<milliseconds>(transfer.until - Clock::now());
  const std::string range = fmt::format("{}-{}", transfer.next(), transfer.last());
  const bool secure = target_.url.starts_with("https:");
  curl_easy_reset(easy);
  CurlSettings settings(easy);
  set_common(settings, target_, target_.url, limits_, left, transfer.reason.data());
  settings.set(CURLOPT_RANGE, range.c_str());
  settings.set(CURLOPT_WRITEFUNCTION, &Transfer::on_body);
  settings.set(CURLOPT_WRITEDATA, &transfer);
  settings.set(CURLOPT_PRIVATE, &transfer);
  settings.set(CURLOPT_BUFFERSIZE, kReceiveBuffer);
  settings.set(CURLOPT_LOW_SPEED_LIMIT, 1L);
  settings.set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(limits_.stall.count()));
  // Requests to a store follow nobody, who would get the token of the session.
  if (!target_.is_store()) {
    settings.set(CURLOPT_FOLLOWLOCATION, 1L);
    settings.set(CURLOPT_MAXREDIRS, kMaxRedirects);
    settings.set(CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
  }
  std::vector<std::string> lines;
  if (transfer.pin != nullptr) lines = transfer.pin->conditions();
  transfer.headers = TRY(set_fields(easy, target_, std::move(lines), kEmptyPayloadHash));
  return settings.finish();
}

Result<void> RangeReader::take_finished(size_t& running, unsigned tries) {
  int left = 0;
  while (const CURLMsg* const message = curl_multi_info_read(multi_.get(), &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    CURL* const easy = message->easy_handle;
    const CURLcode code = message->data.result;
    const auto found = std::ranges::find_if(
        transfers_, [&](const auto& transfer) { return transfer->easy.get() == easy; });
    assert(found != transfers_.end());
    --running;
    TRY(finish(**found, code, tries));
    curl_multi_remove_handle(multi_.get(), easy);
  }
  return {};
}

// One try has ended.
Result<void> RangeReader::finish(Transfer& transfer, CURLcode code, unsigned tries) {
  const auto why = [&] {
    return transfer.reason[0] != '\0' ? transfer.reason.data() : curl_easy_strerror(code);
  };
  long status = 0;
  curl_options().get(transfer.easy.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status == 0 || (code != CURLE_OK && !transfer.reply)) {
    Error error = fail(ErrorKind::kIo, "{}", printable(why(), 300)).value();
    if (is_transient(code)) return try_later(transfer, tries, std::move(error));
    return Failure(std::move(error));
  }
  const JudgedReply& reply = transfer.judge();
  if (reply.meaning == ReplyMeaning::kEmpty) {
    transfer.state = Transfer::State::kDone;
    return {};
  }
  if (reply.meaning != ReplyMeaning::kBytes) return finish_refused(transfer, reply, tries);
  if (transfer.too_long) {
    return fail(ErrorKind::kMalformed, "the server sends more bytes than it says");
  }
  if (transfer.body == reply.length) {
    transfer.state = Transfer::State::kDone;
    return {};
  }
  Error error = fail(ErrorKind::kIo, "the server sent {} of {} bytes: {}", transfer.body,
                     reply.length, printable(why(), 300))
                    .value();
  if (code != CURLE_OK && !is_transient(code)) return Failure(std::move(error));
  return try_later(transfer, tries, std::move(error));
}

// The server sent no bytes of the object.
Result<void> RangeReader::finish_refused(Transfer& transfer, const JudgedReply& reply,
                                         unsigned tries) {
  Error error = reply.error;
  if (const std::string says = error_code_of(transfer.document); !says.empty()) {
    error.message += fmt::format(" ({})", says);
  }
  object_changed_ = reply.meaning == ReplyMeaning::kChanged;
  if (reply.meaning == ReplyMeaning::kLater) return try_later(transfer, tries, std::move(error));
  if (reply.meaning != ReplyMeaning::kKeys || !target_.is_store()) {
    return Failure(std::move(error));
  }
  if (!target_.credentials->has_any()) {
    error.message +=
        "; there are no keys to sign with: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        "write ~/.aws/credentials";
  }
  // Once: keys may have ended before their time.
  if (!transfer.keys_renewed && target_.credentials->expire()) {
    transfer.keys_renewed = true;
    return try_later(transfer, tries, std::move(error));
  }
  return Failure(std::move(error));
}

// What has come stays: the next try asks for the rest.
Result<void> RangeReader::try_later(Transfer& transfer, unsigned tries, Error why) {
  const auto now = Clock::now();
  const milliseconds delay = retry_delay(transfer.easy.get(), limits_, transfer.tries);
  // As long as each try brings some, only the time limits them.
  if (transfer.got_some) transfer.tries = 0;
  // Who is told to wait for longer than there is time tries once more when the time is nearly over.
  constexpr milliseconds kForLastTry{1'000};
  const auto last = transfer.until - std::max<Clock::duration>(kForLastTry, limits_.range / 4);
  const auto due = now + delay < transfer.until ? now + delay : last;
  if (transfer.tries >= tries || due < now) {
    why.message +=
        fmt::format(" (tried {} times in {} ms)", transfer.attempts,
                    std::chrono::duration_cast<milliseconds>(now - transfer.begun).count());
    return Failure(std::move(why));
  }
  if (transfer.pin == nullptr) transfer.got = 0;
  transfer.due = due;
  transfer.state = Transfer::State::kWaiting;
  return {};
}

// libcurl writes to nobody's buffer any more. The connections are kept.
void RangeReader::stop_all() {
  for (const auto& transfer : transfers_) {
    if (!transfer->easy) continue;
    curl_multi_remove_handle(multi_.get(), transfer->easy.get());
    // It holds pointers to what goes now.
    curl_easy_reset(transfer->easy.get());
    if (idle_.size() < kHttpParallel) idle_.push_back(std::move(transfer->easy));
  }
  transfers_.clear();
}

}  // namespace underlay
