#include "io/cache/flights.h"

#include "io/cache/group_layout.h"

namespace underlay {

Flights::Joined Flights::join(uint64_t object, uint64_t first, unsigned count, const void* from) {
  std::unique_lock lock(mutex_);
  if (const auto other = flights_.find({object, first}); other != flights_.end()) {
    const std::shared_ptr<Flight> flight = other->second;
    const auto skip = static_cast<size_t>((first - flight->first_) * kCacheBlock);
    // Of fewer blocks than all there are bytes: the others may be fetched once this is over.
    flight->decided_.wait(lock, [&] {
      return flight->is_over_ || flight->error_ ||
             (flight->bytes_ && flight->bytes_->size() > skip);
    });
    return {.bytes = flight->bytes_,
            .skip = skip,
            .error = flight->from_ == from ? flight->error_ : std::nullopt};
  }
  auto flight = std::make_shared<Flight>();
  flight->object_ = object;
  flight->first_ = first;
  flight->from_ = from;
  while (flight->count_ < count &&
         flights_.try_emplace({object, first + flight->count_}, flight).second) {
    ++flight->count_;
  }
  return {.own = std::make_unique<Own>(*this, std::move(flight))};
}

void Flights::decide(Flight& flight, std::shared_ptr<const Buffer> bytes,
                     std::optional<Error> error) {
  const std::lock_guard lock(mutex_);
  flight.bytes_ = std::move(bytes);
  flight.error_ = std::move(error);
  flight.decided_.notify_all();
}

void Flights::end(Flight& flight) {
  const std::lock_guard lock(mutex_);
  for (unsigned i = 0; i < flight.count_; ++i) flights_.erase({flight.object_, flight.first_ + i});
  flight.is_over_ = true;
  flight.decided_.notify_all();
}

}  // namespace underlay
