#include "io/http/put_writer.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "io/http/http_request.h"
#include "io/http/write_reply.h"

namespace underlay {
namespace {

using Clock = std::chrono::steady_clock;

constexpr long kSendBuffer = 512 << 10;  // bytes
constexpr int kLook = 200;               // ms: how often an interruption is looked for

// Servers store what they got before they answer.
constexpr std::chrono::minutes kAnswer{10};

class PutWriter final : public ObjectWriter {
 public:
  PutWriter(HttpTarget target, WriteSettings settings)
      : target_(std::move(target)), settings_(std::move(settings)) {}

  ~PutWriter() override {
    // A body that ends before its time is no object to servers.
    if (easy_ && multi_) curl_multi_remove_handle(multi_.get(), easy_.get());
  }

  Result<void> start() {
    multi_.reset(curl_multi_init());
    easy_.reset(curl_easy_init());
    if (!multi_ || !easy_) return named(fail(ErrorKind::kLimit, "no memory left"));
    if (auto prepared = prepare(); !prepared) return named(std::move(prepared));
    const CURLMcode added = curl_multi_add_handle(multi_.get(), easy_.get());
    if (added == CURLM_OK) return {};
    return named(fail(ErrorKind::kIo, "libcurl: {}", curl_multi_strerror(added)));
  }

  // Nothing has been sent yet.
  void set_size(uint64_t bytes) override {
    curl_options().set(easy_.get(), CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(bytes));
    size_ = bytes;
  }

  Result<void> append(ByteSpan bytes) override {
    appended_ += bytes.size();
    if (appended_ > size_.value_or(appended_)) return named(wrong_size());
    // A server that knows the length has an object when it has the last byte: finish() sends that.
    if (appended_ == size_ && !bytes.empty()) {
      last_ = bytes.back();
      bytes = bytes.first(bytes.size() - 1);
    }
    pending_ = bytes;
    return go_on([&] { return pending_.empty(); }, settings_.limits.stall);
  }

  Result<void> finish() override {
    // What has been sent to its end is not taken back.
    if (settings_.interrupted()) return fail_errno(EINTR, "interrupted");
    if (appended_ != size_.value_or(appended_)) return named(wrong_size());
    if (last_) pending_ = ByteSpan(&*last_, 1);
    ended_ = true;
    TRY(go_on([&] { return result_.has_value(); }, kAnswer));
    auto judged = judge();
    return judged ? judged : named(std::move(judged));
  }

  std::optional<std::chrono::milliseconds> retry_after(unsigned tries) const override {
    if (!may_pass_) return std::nullopt;
    return retry_delay(easy_.get(), settings_.limits, tries);
  }

 private:
  static size_t on_read(char* to, size_t one, size_t room, void* self) {
    return static_cast<PutWriter*>(self)->give({reinterpret_cast<std::byte*>(to), one * room});
  }

  size_t give(MutableByteSpan room) {
    if (pending_.empty()) return ended_ ? 0 : CURL_READFUNC_PAUSE;
    const size_t part = std::min(room.size(), pending_.size());
    std::ranges::copy(pending_.first(part), room.begin());
    pending_ = pending_.subspan(part);
    return part;
  }

  static size_t on_body(char* data, size_t one, size_t size, void* self) {
    auto& document = static_cast<PutWriter*>(self)->document_;
    const auto kept = without_exceptions([&]() -> Result<void> {
      add_to_document(std::string_view(data, one * size), document);
      return {};
    });
    return kept ? one * size : CURL_WRITEFUNC_ERROR;
  }

  Result<void> prepare() {
    CurlSettings settings(easy_.get());
    // The whole takes as long as it takes.
    set_common(settings, target_, target_.url, settings_.limits, std::chrono::hours(24 * 365),
               reason_.data());
    settings.set(CURLOPT_UPLOAD, 1L);
    settings.set(CURLOPT_TIMEOUT_MS, 0L);
    settings.set(CURLOPT_UPLOAD_BUFFERSIZE, kSendBuffer);
    settings.set(CURLOPT_READFUNCTION, &PutWriter::on_read);
    settings.set(CURLOPT_READDATA, this);
    settings.set(CURLOPT_WRITEFUNCTION, &PutWriter::on_body);
    settings.set(CURLOPT_WRITEDATA, this);
    // So that who is not allowed to hears it before the first byte is lost.
    fields_ = TRY(set_fields(easy_.get(), target_,
                             {"Expect: 100-continue", "Content-Type: application/octet-stream"},
                             kEmptyPayloadHash));
    return settings.finish();
  }

  // Until `done`, or the request has ended. `patience`: without a byte that is taken.
  template <class Done>
  Result<void> go_on(Done done, std::chrono::seconds patience) {
    if (result_) return ended_early();
    curl_easy_pause(easy_.get(), CURLPAUSE_CONT);
    auto last = Clock::now();  // when a byte was taken
    while (!done()) {
      const size_t before = pending_.size();
      int running = 0;
      const CURLMcode performed = curl_multi_perform(multi_.get(), &running);
      if (performed != CURLM_OK) {
        return named(fail(ErrorKind::kIo, "libcurl: {}", curl_multi_strerror(performed)));
      }
      take_result();
      if (done()) break;
      if (result_) return ended_early();
      if (settings_.interrupted()) return fail_errno(EINTR, "interrupted");
      const auto now = Clock::now();
      if (pending_.size() != before) last = now;
      // Of a refusal, no more need be said.
      const bool is_refused = status() >= 300;
      if (now - last >= (is_refused ? std::min(patience, settings_.limits.stall) : patience)) {
        if (is_refused) return ended_early();
        may_pass_ = true;
        return named(fail(ErrorKind::kIo, "the server has taken nothing for {} s",
                          std::chrono::duration_cast<std::chrono::seconds>(patience).count()));
      }
      if (pending_.size() == before) {
        (void)curl_multi_poll(multi_.get(), nullptr, 0, kLook, nullptr);
      }
    }
    return {};
  }

  void take_result() {
    int left = 0;
    while (const CURLMsg* const message = curl_multi_info_read(multi_.get(), &left)) {
      if (message->msg == CURLMSG_DONE) result_ = message->data.result;
    }
  }

  // The server did not want to have all of it.
  Result<void> ended_early() {
    auto judged = judge();
    if (!judged) return named(std::move(judged));
    return named(fail(ErrorKind::kMalformed, "the server says that it has all before it has"));
  }

  Result<void> wrong_size() const {
    return fail(ErrorKind::kIo, "{} bytes were to be sent, and there are {}", *size_, appended_);
  }

  // 0: there is none.
  long status() const {
    constexpr long kExpectationFailed = 417;  // libcurl sends the request again, without Expect
    long status = 0;
    curl_options().get(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
    return status == kExpectationFailed && result_ != CURLE_OK ? 0 : status;
  }

  // Of a refusal, the status says it all, also when the rest of the reply is lost. REQUIRES:
  // result_, or a refusal.
  Result<void> judge() {
    const long code = status();
    if (code < 300 && (code < 200 || *result_ != CURLE_OK)) {
      may_pass_ = is_transient(*result_);
      return fail(
          ErrorKind::kIo, "{}",
          printable(reason_[0] != '\0' ? reason_.data() : curl_easy_strerror(*result_), 300));
    }
    WriteVerdict verdict = judge_write(code, document_);
    may_pass_ = verdict.meaning == WriteVerdict::Meaning::kLater;
    return std::move(verdict.result);
  }

  Result<void> named(Result<void> failed) const {
    return in_file(std::move(failed).error(), target_.shown);
  }

  const HttpTarget target_;
  const WriteSettings settings_;
  CurlMulti multi_;
  CurlList fields_;
  std::array<char, CURL_ERROR_SIZE> reason_{};
  CurlEasy easy_;
  std::optional<uint64_t> size_;   // of all, when it is known first
  uint64_t appended_ = 0;          // bytes
  std::optional<std::byte> last_;  // held back
  ByteSpan pending_;               // what append() waits for
  bool ended_ = false;             // no more will come
  std::string document_;
  std::optional<CURLcode> result_;  // the request has ended
  bool may_pass_ = false;           // sending it again may help
};

}  // namespace

Result<std::unique_ptr<ObjectWriter>> make_put_writer(HttpTarget target, WriteSettings settings) {
  auto writer = std::make_unique<PutWriter>(std::move(target), std::move(settings));
  TRY(writer->start());
  return writer;
}

}  // namespace underlay
