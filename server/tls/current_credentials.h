// The credentials of connections to come, which may be replaced while a server runs.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

namespace underlay {

class TlsCredentials;

// Thread-safe.
class CurrentCredentials {
 public:
  // Null without TLS.
  explicit CurrentCredentials(std::shared_ptr<const TlsCredentials> first = nullptr)
      : credentials_(std::move(first)) {}

  std::shared_ptr<const TlsCredentials> get() const {
    const std::lock_guard lock(mutex_);
    return credentials_;
  }
  // Connections that are there go on with those that they have.
  void replace(std::shared_ptr<const TlsCredentials> next) {
    const std::lock_guard lock(mutex_);
    std::swap(credentials_, next);
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const TlsCredentials> credentials_;  // under mutex_
};

}  // namespace underlay
