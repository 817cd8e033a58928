#include "io/http/multipart_writer.h"

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "io/http/store_requests.h"
#include "io/http/xml_element.h"
#include "io/percent_encoding.h"

namespace underlay {
namespace {

// Limits of Amazon's ("Amazon S3 multipart upload limits"): 10,000 parts, of at least 5 MiB but for
// the last one. Some are left for images that are larger than was expected.
constexpr uint64_t kMaxParts = 10'000;
constexpr uint64_t kPlannedParts = 9'000;
constexpr uint64_t kSmallestPart = 16 << 20;
constexpr uint64_t kMostAtOnce = 4;

constexpr size_t kMaxUploadId = 4096;  // letters

uint64_t part_size(uint64_t expected) {
  constexpr uint64_t kMiB = 1 << 20;
  return std::max(kSmallestPart, div_round_up(div_round_up(expected, kPlannedParts), kMiB) * kMiB);
}

class MultipartWriter final : public ObjectWriter {
 public:
  MultipartWriter(HttpTarget target, WriteSettings settings)
      : target_(std::move(target)),
        settings_(std::move(settings)),
        part_size_(part_size(settings_.expected)),
        at_once_(std::clamp<uint64_t>(kUploadMemory / part_size_, 2, kMostAtOnce + 1) - 1) {
    requests_.emplace(target_, settings_);
    part_.reserve(part_size_);
  }

  ~MultipartWriter() override {
    requests_.reset();  // no part may come behind the end
    if (!finished_ && !upload_.empty()) abort();
  }

  void set_size(uint64_t) override {}

  Result<void> append(ByteSpan bytes) override {
    while (!bytes.empty()) {
      const size_t count = std::min<size_t>(bytes.size(), part_size_ - part_.size());
      part_.insert(part_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count));
      bytes = bytes.subspan(count);
      if (part_.size() == part_size_) TRY(named(send_part()));
    }
    return named(requests_->go_on());
  }

  Result<void> finish() override {
    if (upload_.empty()) {
      TRY(named(put_whole()));
    } else {
      TRY(named(finish_parts()));
    }
    finished_ = true;
    return {};
  }

  std::optional<std::chrono::milliseconds> retry_after(unsigned) const override {
    return std::nullopt;
  }

 private:
  Result<void> put_whole() {
    if (settings_.interrupted()) return fail_errno(EINTR, "interrupted");
    TRY(requests_->start({.method = "PUT", .url = target_.url, .body = part_},
                         [](const StoreReply&) { return Result<void>(); }));
    return requests_->wait_until_left(0);
  }

  Result<void> finish_parts() {
    if (!part_.empty()) TRY(send_part());
    TRY(requests_->wait_until_left(0));
    if (settings_.interrupted()) return fail_errno(EINTR, "interrupted");
    return complete();
  }

  Result<void> send_part() {
    if (upload_.empty()) TRY(begin());
    const uint64_t number = ++parts_;
    if (number > kMaxParts) {
      return fail(ErrorKind::kLimit, "has more than {} parts of {} MiB, which is what stores take",
                  kMaxParts, part_size_ >> 20);
    }
    // What it takes is bounded by how many are under way.
    auto body = std::make_shared<std::vector<std::byte>>(std::move(part_));
    part_ = {};
    TRY(requests_->start(
        {.method = "PUT",
         .url = fmt::format("{}?partNumber={}&uploadId={}", target_.url, number, upload_),
         .body = *body},
        [this, number, body](const StoreReply& reply) -> Result<void> {
          if (reply.etag.empty()) {
            return fail(ErrorKind::kMalformed, "the store states no ETag of part {}", number);
          }
          tags_[number] = reply.etag;
          return {};
        }));
    TRY(requests_->wait_until_left(at_once_ - 1));
    part_.reserve(part_size_);
    return {};
  }

  Result<void> begin() {
    TRY(requests_->start({.method = "POST", .url = target_.url + "?uploads=", .body = {}},
                         [this](const StoreReply& reply) -> Result<void> {
                           const std::string id =
                               element_of(reply.document, "UploadId", kMaxUploadId);
                           if (id.empty()) {
                             return fail(ErrorKind::kMalformed,
                                         "the store's answer to CreateMultipartUpload has no "
                                         "UploadId");
                           }
                           upload_ = percent_encoded(id, "");
                           return {};
                         }));
    return requests_->wait_until_left(0);
  }

  Result<void> complete() {
    std::string document = "<CompleteMultipartUpload>";
    for (const auto& [number, tag] : tags_) {
      document += fmt::format("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>", number,
                              xml_escaped(tag));
    }
    document += "</CompleteMultipartUpload>";
    // The status comes before the parts have been put together: it may have to be taken back.
    TRY(requests_->start(
        {.method = "POST",
         .url = fmt::format("{}?uploadId={}", target_.url, upload_),
         .body = as_bytes(document)},
        [](const StoreReply& reply) -> Result<void> {
          if (reply.document.find("<CompleteMultipartUploadResult") != std::string::npos) return {};
          return fail(ErrorKind::kIo, "the store cannot put the parts together ({})",
                      printable(element_of(reply.document, "Code", 64)));
        }));
    return requests_->wait_until_left(0);
  }

  // Else the store keeps the parts, for money, until somebody looks for them.
  void abort() {
    WriteSettings settings = settings_;
    settings.limits.tries = 2;
    settings.limits.connect = std::chrono::milliseconds(3'000);
    settings.interrupted = [] { return false; };
    StoreRequests last(target_, settings);
    const auto sent = last.start({.method = "DELETE",
                                  .url = fmt::format("{}?uploadId={}", target_.url, upload_),
                                  .body = {}},
                                 [](const StoreReply&) { return Result<void>(); });
    if (sent) (void)last.wait_until_left(0);
  }

  Result<void> named(Result<void> done) const {
    if (done) return done;
    return in_file(std::move(done).error(), target_.shown);
  }

  const HttpTarget target_;
  const WriteSettings settings_;
  const uint64_t part_size_;  // bytes
  const uint64_t at_once_;    // parts under way; one more is filled
  std::vector<std::byte> part_;
  uint64_t parts_ = 0;
  std::string upload_;                    // as a URL has it; "" = not begun
  std::map<uint64_t, std::string> tags_;  // of the parts, by number
  bool finished_ = false;
  std::optional<StoreRequests> requests_;  // goes first: it sends what is above
};

}  // namespace

Result<std::unique_ptr<ObjectWriter>> make_multipart_writer(HttpTarget target,
                                                            WriteSettings settings) {
  return std::make_unique<MultipartWriter>(std::move(target), std::move(settings));
}

}  // namespace underlay
