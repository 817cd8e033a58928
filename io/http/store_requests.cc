#include "io/http/store_requests.h"

#include <gnutls/crypto.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>

#include "io/gnutls_on_demand.h"
#include "io/http/http_request.h"
#include "io/http/write_reply.h"

namespace underlay {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kLook = 100;                // ms: how often an interruption is looked for
constexpr long kSendBuffer = 512 << 10;   // bytes
constexpr std::chrono::minutes kTime{5};  // for a request, with all its tries

Result<std::string> sha256_of(ByteSpan body) {
  if (body.empty()) return std::string(kEmptyPayloadHash);
  std::array<unsigned char, 32> digest{};
  if (!load_gnutls()) {
    return fail(ErrorKind::kUnsupported,
                "libgnutls.so.30 cannot be loaded: install the package libgnutls30");
  }
  if (gnutls_hash_fast(GNUTLS_DIG_SHA256, body.data(), body.size(), digest.data()) != 0) {
    return fail(ErrorKind::kIo, "GnuTLS cannot compute the digest");
  }
  std::string text;
  for (const unsigned char byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace

struct StoreRequests::Transfer {
  StoreRequest request;
  OnReply on_reply;
  std::string hash;  // of the body

  CurlEasy easy;
  CurlList fields;
  std::array<char, CURL_ERROR_SIZE> reason{};
  bool runs = false;
  unsigned tries = 0;
  bool keys_renewed = false;
  Clock::time_point due;    // unless it runs
  Clock::time_point until;  // all tries

  // Of the try at hand.
  ByteSpan left;  // of the body
  StoreReply reply;

  static size_t on_read(char* to, size_t one, size_t room, void* self) {
    auto& left = static_cast<Transfer*>(self)->left;
    const size_t part = std::min(one * room, left.size());
    std::ranges::copy(left.first(part), reinterpret_cast<std::byte*>(to));
    left = left.subspan(part);
    return part;
  }
  // libcurl wants to begin anew on another connection.
  static int on_seek(void* self, curl_off_t offset, int origin) {
    auto& transfer = *static_cast<Transfer*>(self);
    const auto place = static_cast<uint64_t>(offset);
    if (origin != SEEK_SET || offset < 0 || place > transfer.request.body.size()) {
      return CURL_SEEKFUNC_FAIL;
    }
    transfer.left = transfer.request.body.subspan(place);
    return CURL_SEEKFUNC_OK;
  }
  static size_t on_body(char* data, size_t one, size_t size, void* self) {
    auto& document = static_cast<Transfer*>(self)->reply.document;
    const auto kept = without_exceptions([&]() -> Result<void> {
      add_to_document(std::string_view(data, one * size), document);
      return {};
    });
    return kept ? one * size : CURL_WRITEFUNC_ERROR;
  }
};

StoreRequests::StoreRequests(const HttpTarget& target, const WriteSettings& settings)
    : target_(target), settings_(settings), multi_(curl_multi_init()) {}

StoreRequests::~StoreRequests() {
  for (const auto& transfer : transfers_) {
    if (transfer->runs) curl_multi_remove_handle(multi_.get(), transfer->easy.get());
  }
}

Result<void> StoreRequests::start(StoreRequest request, OnReply on_reply) {
  auto transfer = std::make_unique<Transfer>();
  transfer->hash = TRY(sha256_of(request.body));
  transfer->request = std::move(request);
  transfer->on_reply = std::move(on_reply);
  transfer->until = Clock::now() + kTime;
  transfers_.push_back(std::move(transfer));
  return go_on();
}

Result<void> StoreRequests::go_on() {
  if (!multi_) return fail(ErrorKind::kLimit, "no memory left");
  TRY(start_due());
  int active = 0;
  const CURLMcode performed = curl_multi_perform(multi_.get(), &active);
  if (performed != CURLM_OK) {
    return fail(ErrorKind::kIo, "libcurl: {}", curl_multi_strerror(performed));
  }
  return take_finished();
}

Result<void> StoreRequests::wait_until_left(size_t count) {
  while (transfers_.size() > count) {
    if (settings_.interrupted()) return fail_errno(EINTR, "interrupted");
    const size_t before = transfers_.size();
    TRY(go_on());
    if (transfers_.size() == before) {
      (void)curl_multi_poll(multi_.get(), nullptr, 0, kLook, nullptr);
    }
  }
  return {};
}

Result<void> StoreRequests::start_due() {
  const auto now = Clock::now();
  for (const auto& transfer : transfers_) {
    if (!transfer->runs && transfer->due <= now) TRY(send(*transfer));
  }
  return {};
}

Result<void> StoreRequests::send(Transfer& transfer) {
  ++transfer.tries;
  transfer.left = transfer.request.body;
  transfer.reply = {};
  transfer.reason[0] = '\0';
  if (!transfer.easy) transfer.easy.reset(curl_easy_init());
  CURL* const easy = transfer.easy.get();
  if (easy == nullptr) return fail(ErrorKind::kLimit, "no memory left");
  curl_easy_reset(easy);
  CurlSettings settings(easy);
  const auto left = std::chrono::duration_cast<milliseconds>(transfer.until - Clock::now());
  set_common(settings, target_, transfer.request.url, settings_.limits, left,
             transfer.reason.data());
  settings.set(CURLOPT_UPLOAD, 1L);
  settings.set(CURLOPT_CUSTOMREQUEST, transfer.request.method.c_str());
  settings.set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(transfer.request.body.size()));
  settings.set(CURLOPT_UPLOAD_BUFFERSIZE, kSendBuffer);
  settings.set(CURLOPT_READFUNCTION, &Transfer::on_read);
  settings.set(CURLOPT_READDATA, &transfer);
  settings.set(CURLOPT_SEEKFUNCTION, &Transfer::on_seek);
  settings.set(CURLOPT_SEEKDATA, &transfer);
  settings.set(CURLOPT_WRITEFUNCTION, &Transfer::on_body);
  settings.set(CURLOPT_WRITEDATA, &transfer);
  settings.set(CURLOPT_LOW_SPEED_LIMIT, 1L);
  // Stores put the parts together before they answer.
  settings.set(CURLOPT_LOW_SPEED_TIME, 4 * static_cast<long>(settings_.limits.stall.count()));
  transfer.fields = TRY(set_fields(easy, target_, {}, transfer.hash));
  TRY(settings.finish());
  const CURLMcode added = curl_multi_add_handle(multi_.get(), easy);
  if (added != CURLM_OK) {
    return fail(ErrorKind::kIo, "libcurl: {}", curl_multi_strerror(added));
  }
  transfer.runs = true;
  return {};
}

Result<void> StoreRequests::take_finished() {
  int left = 0;
  while (const CURLMsg* const message = curl_multi_info_read(multi_.get(), &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;
    const auto found =
        std::ranges::find_if(transfers_, [easy = message->easy_handle](const auto& transfer) {
          return transfer->easy.get() == easy;
        });
    assert(found != transfers_.end());
    curl_multi_remove_handle(multi_.get(), (*found)->easy.get());
    (*found)->runs = false;
    (*found)->due = Clock::time_point::max();
    TRY(finish(**found, code));
    if ((*found)->due == Clock::time_point::max()) transfers_.erase(found);
  }
  return {};
}

// One try has ended. `due` is set when there is to be another one.
Result<void> StoreRequests::finish(Transfer& transfer, CURLcode code) {
  long status = 0;
  curl_options().get(transfer.easy.get(), CURLINFO_RESPONSE_CODE, &status);
  if (code != CURLE_OK || status == 0) {
    const char* const why =
        transfer.reason[0] != '\0' ? transfer.reason.data() : curl_easy_strerror(code);
    Error error = fail(ErrorKind::kIo, "{}", printable(why, 300)).value();
    if (is_transient(code)) return try_later(transfer, std::move(error));
    return Failure(std::move(error));
  }
  WriteVerdict verdict = judge_write(status, transfer.reply.document);
  switch (verdict.meaning) {
    case WriteVerdict::Meaning::kDone:
      transfer.reply.etag = reply_field(transfer.easy.get(), "ETag");
      return transfer.on_reply(transfer.reply);
    case WriteVerdict::Meaning::kLater:
      return try_later(transfer, std::move(verdict.result).error());
    case WriteVerdict::Meaning::kKeys:
      // Once: keys may have ended before their time.
      if (!transfer.keys_renewed && target_.credentials->expire()) {
        transfer.keys_renewed = true;
        return try_later(transfer, std::move(verdict.result).error());
      }
      return std::move(verdict.result);
    case WriteVerdict::Meaning::kFailed:
      break;
  }
  return std::move(verdict.result);
}

Result<void> StoreRequests::try_later(Transfer& transfer, Error why) {
  const auto now = Clock::now();
  const auto delay = retry_delay(transfer.easy.get(), settings_.limits, transfer.tries);
  if (transfer.tries >= settings_.limits.tries || now + delay >= transfer.until) {
    why.message += fmt::format(" (tried {} times)", transfer.tries);
    return Failure(std::move(why));
  }
  transfer.due = now + delay;
  return {};
}

}  // namespace underlay
