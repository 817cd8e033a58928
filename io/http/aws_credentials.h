// Keys for an S3 store, and where they come from.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "io/error.h"
#include "io/http/command_helper.h"

namespace underlay {

struct AwsCredentials {
  std::string key_id;
  std::string secret;
  std::string token;  // of a session; "" = none
  std::optional<std::chrono::system_clock::time_point> expires;
};

// The answer of a credential_process (AWS SDKs and Tools Reference Guide, "Process credential
// provider", version 1). Errors name no value.
Result<AwsCredentials> parse_process_credentials(std::string_view json);

// When credentials of that lifetime are to be fetched anew: before they end, so that a request that
// takes its time is not refused.
std::chrono::system_clock::time_point renewal_time(std::chrono::system_clock::time_point obtained,
                                                   std::chrono::system_clock::time_point expires);

// Thread-safe.
class AwsCredentialSource {
 public:
  // The first that there is: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; keys
  // in the credentials file, then in the config file; its credential_process, or that of the
  // credentials file. None of them: requests are not signed. Blocks; starts a process when there is
  // a command, so call it before the sandbox is entered.
  static Result<std::unique_ptr<AwsCredentialSource>> from_environment();

  // The same for all images of this process, so that its command has one process, and servers find
  // it there when they are in their sandbox. Thread-safe.
  static Result<std::shared_ptr<AwsCredentialSource>> of_process();

  // False: requests are not signed.
  bool has_any() const { return kind_ != Kind::kNone; }

  // The keys to sign with now; nullopt when there are none. Those that end soon are renewed first.
  // Blocks. Errors name no key.
  Result<std::optional<AwsCredentials>> get();

  // The store says that the keys are no longer good: the next get() fetches them anew. False when
  // they cannot change.
  bool expire();

 private:
  enum class Kind : uint8_t { kNone, kFixed, kFiles, kCommand };

  Result<AwsCredentials> fetch();

  Kind kind_ = Kind::kNone;
  std::unique_ptr<CommandHelper> command_;
  std::mutex mutex_;  // of what follows
  std::optional<AwsCredentials> current_;
  std::optional<std::chrono::system_clock::time_point> renew_;
};

}  // namespace underlay
