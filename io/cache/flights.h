// Fetches that are going on: a block is fetched once, and fails once, however many threads ask for
// it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

// Thread-safe. Blocks are named by their object's number and their own.
class Flights {
 public:
  using Buffer = std::vector<std::byte>;

  // What one thread fetches. It ends when the thread says so, or gives up the flight. Its bytes are
  // there for others before.
  class Flight {
   public:
    uint64_t first() const { return first_; }
    unsigned count() const { return count_; }

   private:
    friend class Flights;
    uint64_t object_ = 0;
    uint64_t first_ = 0;
    unsigned count_ = 0;
    const void* from_ = nullptr;
    bool is_over_ = false;
    std::shared_ptr<const Buffer> bytes_;
    std::optional<Error> error_;
    std::condition_variable decided_;
  };

  // A flight of the caller's own, which end() ends at the latest in its destructor.
  class Own {
   public:
    Own(Flights& flights, std::shared_ptr<Flight> flight)
        : flights_(&flights), flight_(std::move(flight)) {}
    Own(Own&& other) noexcept = default;
    Own& operator=(Own&&) = delete;
    ~Own() { end(); }

    const Flight& operator*() const { return *flight_; }
    const Flight* operator->() const { return flight_.get(); }

    // `bytes`: those of the flight's blocks, from the first on, maybe of fewer than all. Whoever
    // waits, or comes before the end, has them. REQUIRES: not ended.
    void arrived(std::shared_ptr<const Buffer> bytes) {
      flights_->decide(*flight_, std::move(bytes), std::nullopt);
    }
    // Ends it with this error, for all who wait. REQUIRES: not ended.
    void failed(const Error& error) {
      flights_->decide(*flight_, nullptr, error);
      end();
    }
    // Nothing arrived, nor failed: whoever waits looks for himself.
    void end() {
      if (flight_) flights_->end(*std::exchange(flight_, nullptr));
    }

   private:
    Flights* flights_;
    std::shared_ptr<Flight> flight_;
  };

  // Begins the flight of up to `count` blocks from `first` on, as far as no other thread fetches
  // any of them.
  // When another thread fetches `first`, waits for what comes of that instead: the bytes of `first`
  // and of what came with it, or its error, or nothing. `from`: where it is fetched from; what
  // fails elsewhere may go well here.
  struct Joined {
    std::unique_ptr<Own> own{};             // or
    std::shared_ptr<const Buffer> bytes{};  // from the block `first` on, at `skip`; or
    size_t skip = 0;
    std::optional<Error> error{};
  };
  Joined join(uint64_t object, uint64_t first, unsigned count, const void* from);

 private:
  using Key = std::pair<uint64_t, uint64_t>;
  void decide(Flight& flight, std::shared_ptr<const Buffer> bytes, std::optional<Error> error);
  void end(Flight& flight);

  std::mutex mutex_;  // of what follows, and of what is private in each Flight
  std::map<Key, std::shared_ptr<Flight>> flights_;  // one entry for each block
};

}  // namespace underlay
