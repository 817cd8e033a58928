#include "io/http/aws_credentials.h"

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "io/environment.h"
#include "io/http/aws_files.h"

namespace underlay {
namespace {

using Clock = std::chrono::system_clock;

// How long before their end keys are renewed; of short-lived ones a quarter of their time.
constexpr std::chrono::minutes kBeforeEnd{5};

// When a renewal failed, and the keys are still good: how soon it is tried again.
constexpr std::chrono::seconds kTryAgain{10};

std::optional<AwsCredentials> keys_of(const AwsProfile& profile) {
  const auto value = [&](std::string_view key) {
    const auto found = profile.find(key);
    return found == profile.end() ? std::string() : found->second;
  };
  AwsCredentials keys{.key_id = value("aws_access_key_id"),
                      .secret = value("aws_secret_access_key"),
                      .token = value("aws_session_token"),
                      .expires = std::nullopt};
  if (keys.key_id.empty() || keys.secret.empty()) return std::nullopt;
  return keys;
}

// Of the files; nullopt when neither has any.
Result<std::optional<AwsCredentials>> keys_of_files() {
  for (const std::string& path : {aws_credentials_file(), aws_config_file()}) {
    if (auto keys = keys_of(TRY(read_aws_profile(path)))) return keys;
  }
  return std::nullopt;
}

Result<std::string> command_of_files() {
  for (const std::string& path : {aws_config_file(), aws_credentials_file()}) {
    AwsProfile profile = TRY(read_aws_profile(path));
    const auto found = profile.find("credential_process");
    if (found != profile.end()) return found->second;
  }
  return std::string();
}

// ISO 8601 in UTC, as "2026-01-31T12:00:00Z", fractions of a second left out.
std::optional<Clock::time_point> parse_time(const std::string& text) {
  std::tm parts{};
  const char* rest = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (rest == nullptr) return std::nullopt;
  if (*rest == '.') rest += 1 + std::string_view(rest + 1).find_first_not_of("0123456789");
  const std::string_view zone(rest);
  if (zone != "Z" && zone != "+00:00") return std::nullopt;
  // The clock counts nanoseconds, to the year 2262: what lies beyond never ends.
  constexpr std::time_t kLatest = 7'258'118'400;  // 2200-01-01
  return Clock::from_time_t(std::clamp<std::time_t>(::timegm(&parts), 0, kLatest));
}

// A member that is a string; "" when there is none.
std::string text_of(const nlohmann::json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

}  // namespace

Result<AwsCredentials> parse_process_credentials(std::string_view json) {
  const auto answer = nlohmann::json::parse(json, nullptr, false);
  if (!answer.is_object()) {
    return fail(ErrorKind::kMalformed, "the command's output is no JSON object");
  }
  const auto version = answer.find("Version");
  if (version == answer.end() || *version != 1) {
    return fail(ErrorKind::kUnsupported, "the command's output must have \"Version\": 1");
  }
  AwsCredentials keys{.key_id = text_of(answer, "AccessKeyId"),
                      .secret = text_of(answer, "SecretAccessKey"),
                      .token = text_of(answer, "SessionToken"),
                      .expires = std::nullopt};
  if (keys.key_id.empty() || keys.secret.empty()) {
    return fail(ErrorKind::kMalformed,
                "the command's output must have \"AccessKeyId\" and \"SecretAccessKey\"");
  }
  const std::string expires = text_of(answer, "Expiration");
  if (expires.empty()) return keys;
  keys.expires = parse_time(expires);
  if (keys.expires) return keys;
  return fail(ErrorKind::kMalformed,
              "the command's \"Expiration\" \"{}\" is no time like 2026-01-31T12:00:00Z",
              printable(expires, 80));
}

Clock::time_point renewal_time(Clock::time_point obtained, Clock::time_point expires) {
  const Clock::duration lifetime = std::max(expires - obtained, Clock::duration::zero());
  return expires - std::min<Clock::duration>(kBeforeEnd, lifetime / 4);
}

Result<std::unique_ptr<AwsCredentialSource>> AwsCredentialSource::from_environment() {
  auto source = std::make_unique<AwsCredentialSource>();
  AwsCredentials stated{.key_id = environment("AWS_ACCESS_KEY_ID"),
                        .secret = environment("AWS_SECRET_ACCESS_KEY"),
                        .token = environment("AWS_SESSION_TOKEN"),
                        .expires = std::nullopt};
  if (stated.key_id.empty() != stated.secret.empty()) {
    return fail(
        ErrorKind::kUsage,
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: only one of them is set: set both, or "
        "none for the keys of ~/.aws");
  }
  if (!stated.key_id.empty()) {
    source->kind_ = Kind::kFixed;
    source->current_ = std::move(stated);
    return source;
  }
  if (TRY(keys_of_files())) {
    source->kind_ = Kind::kFiles;
    return source;
  }
  const std::string command = TRY(command_of_files());
  if (command.empty()) return source;
  source->kind_ = Kind::kCommand;
  source->command_ = TRY(CommandHelper::start(command));
  return source;
}

Result<std::shared_ptr<AwsCredentialSource>> AwsCredentialSource::of_process() {
  static std::mutex mutex;
  static std::shared_ptr<AwsCredentialSource> known;
  const std::lock_guard lock(mutex);
  if (known) return known;
  std::shared_ptr<AwsCredentialSource> source = TRY(from_environment());
  // There may be some later.
  if (source->has_any()) known = source;
  return source;
}

Result<AwsCredentials> AwsCredentialSource::fetch() {
  if (kind_ == Kind::kFiles) {
    auto keys = TRY(keys_of_files());
    if (keys) return *std::move(keys);
    return fail(ErrorKind::kDenied, "{} and {} have no keys any more: write some, or start again",
                aws_credentials_file(), aws_config_file());
  }
  auto output = command_->run();
  auto keys = output ? parse_process_credentials(*output) : Failure(std::move(output).error());
  if (!keys) return with_context(std::move(keys).error(), "credential_process: ");
  return keys;
}

Result<std::optional<AwsCredentials>> AwsCredentialSource::get() {
  if (kind_ == Kind::kNone) return std::nullopt;
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  if (current_ && (!renew_ || now < *renew_)) return current_;
  auto fetched = fetch();
  if (!fetched) {
    if (!current_ || !current_->expires || now >= *current_->expires) {
      return Failure(std::move(fetched).error());
    }
    renew_ = now + kTryAgain;
    return current_;
  }
  current_ = *std::move(fetched);
  renew_.reset();
  if (current_->expires) renew_ = renewal_time(now, *current_->expires);
  return current_;
}

bool AwsCredentialSource::expire() {
  if (kind_ == Kind::kNone || kind_ == Kind::kFixed) return false;
  const std::lock_guard lock(mutex_);
  current_.reset();
  return true;
}

}  // namespace underlay
