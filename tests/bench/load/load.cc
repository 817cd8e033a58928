#include "tests/bench/load/load.h"

#include <sys/epoll.h>
#include <sys/resource.h>

#include <cerrno>

#include "server/nbd_protocol.h"

namespace underlay::bench {
namespace {

double cpu_seconds() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

// The part of the export that is read.
Result<Offsets::Area> area_of(const Settings& settings, uint64_t export_size) {
  if (settings.from > export_size) {
    return fail(ErrorKind::kUsage, "--from {}: the export has {} bytes", settings.from,
                export_size);
  }
  const uint64_t range = settings.range != 0 ? settings.range : export_size - settings.from;
  if (!range_within(settings.from, range, export_size) || range < settings.size) {
    return fail(ErrorKind::kUsage, "{} bytes from {} on: the export has {}, one read {}", range,
                settings.from, export_size, settings.size);
  }
  return Offsets::Area{.from = settings.from, .range = range, .size = settings.size};
}

}  // namespace

Result<std::unique_ptr<Load>> Load::make(const Settings& settings) {
  RawImage raw;
  if (!settings.verify.empty()) raw = TRY(RawImage::open(settings.verify));
  Connection first = TRY(Connection::open(settings));
  const auto area = TRY(area_of(settings, first.export_size()));
  std::unique_ptr<Load> load(
      new Load(settings, std::move(raw), Offsets(area, settings.sequential, settings.seed)));
  if (settings.discard) load->discard_ = TRY(Discard::open());
  const auto share = [&](unsigned index) -> size_t {
    return settings.depth / settings.connections +
           (index < settings.depth % settings.connections ? 1 : 0);
  };
  load->links_.reserve(settings.connections);
  load->slots_.resize(settings.depth);
  load->add_link(std::move(first), share(0));
  for (unsigned index = 1; index < settings.connections; ++index) {
    load->add_link(TRY(Connection::open(settings)), share(index));
  }
  if (settings.connections > 1) TRY(load->watch_links());
  return load;
}

void Load::add_link(Connection connection, size_t slots) {
  const size_t first = links_.empty() ? 0 : links_.back().first_slot + links_.back().slots;
  links_.push_back(Link{.connection = std::move(connection),
                        .replies = Replies(settings_.size),
                        .first_slot = first,
                        .slots = slots,
                        .requests = std::vector<std::byte>(slots * nbd::kRequestBytes)});
}

Result<void> Load::watch_links() {
  epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return fail_errno(errno, "epoll_create1");
  for (size_t index = 0; index < links_.size(); ++index) {
    epoll_event event{.events = EPOLLIN, .data = {.u64 = index}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, links_[index].connection.fd(), &event) != 0) {
      return fail_errno(errno, "epoll_ctl");
    }
  }
  return {};
}

Result<void> Load::run() {
  const double cpu_before = cpu_seconds();
  const auto begin = Clock::now();
  end_ = begin + std::chrono::duration_cast<Clock::duration>(
                     std::chrono::duration<double>(settings_.seconds));
  for (Link& link : links_) {
    for (size_t index = 0; index < link.slots; ++index) {
      if (wants_more(begin)) TRY(ask(link, link.first_slot + index));
    }
    TRY(flush(link));
  }
  while (under_way_ > 0) TRY(wait_and_receive());
  elapsed_ = std::chrono::duration<double>(Clock::now() - begin).count();
  cpu_seconds_ = cpu_seconds() - cpu_before;
  return {};
}

Result<void> Load::wait_and_receive() {
  if (links_.size() == 1) return receive(links_.front());
  std::array<epoll_event, 64> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                 kPatienceSeconds * 1000);
  if (count < 0 && errno != EINTR) return fail_errno(errno, "epoll_wait");
  if (count == 0) return fail(ErrorKind::kIo, "no reply within {} s", kPatienceSeconds);
  for (int index = 0; index < count; ++index) {
    TRY(receive(links_[events[static_cast<size_t>(index)].data.u64]));
  }
  return {};
}

Result<void> Load::receive(Link& link) {
  if (discard_) return receive_discarding(link);
  ByteSpan input = ByteSpan(input_).first(TRY(link.connection.receive(input_)));
  const auto now = Clock::now();
  Replies::Piece piece;
  while (TRY(link.replies.next(input, piece))) TRY(take(link, piece, now));
  return flush(link);
}

// One step for each call, so that none waits for one connection while others have something.
Result<void> Load::receive_discarding(Link& link) {
  Replies::Piece piece;
  if (const size_t missing = link.replies.header_left(); missing > 0) {
    const auto out = MutableByteSpan(input_).first(missing);
    ByteSpan input = ByteSpan(input_).first(TRY(link.connection.receive(out)));
    if (!TRY(link.replies.next(input, piece))) return {};
  } else {
    piece =
        link.replies.skip(TRY(discard_->drop(link.connection.fd(), link.replies.payload_left())));
  }
  TRY(take(link, piece, Clock::now()));
  return flush(link);
}

Result<void> Load::take(Link& link, const Replies::Piece& piece, Clock::time_point now) {
  if (piece.handle < link.first_slot || piece.handle - link.first_slot >= link.slots ||
      !slots_[piece.handle].under_way) {
    return fail(ErrorKind::kMalformed, "a reply to no request: handle {}", piece.handle);
  }
  Slot& slot = slots_[piece.handle];
  if (raw_.present()) TRY(raw_.compare(slot.offset + piece.at, piece.payload));
  if (!piece.last) return {};
  slot.under_way = false;
  --under_way_;
  const auto latency = std::chrono::duration_cast<std::chrono::nanoseconds>(now - slot.sent);
  latencies_.add(static_cast<uint64_t>(std::max<int64_t>(latency.count(), 0)));
  return wants_more(now) ? ask(link, piece.handle) : Result<void>();
}

bool Load::wants_more(Clock::time_point now) const {
  return settings_.operations != 0 ? asked_ < settings_.operations : now < end_;
}

Result<void> Load::ask(Link& link, size_t index) {
  Slot& slot = slots_[index];
  slot = {.offset = offsets_.next(), .sent = Clock::now(), .under_way = true};
  const MutableByteSpan request = MutableByteSpan(link.requests).subspan(link.requests_bytes);
  store_be<uint32_t>(request, 0, nbd::kRequestMagic);
  store_be<uint16_t>(request, 4, uint16_t{0});
  store_be<uint16_t>(request, 6, static_cast<uint16_t>(nbd::Command::kRead));
  store_be<uint64_t>(request, 8, index);
  store_be<uint64_t>(request, 16, slot.offset);
  store_be<uint32_t>(request, 24, static_cast<uint32_t>(settings_.size));
  link.requests_bytes += nbd::kRequestBytes;
  ++under_way_;
  ++asked_;
  return settings_.batch ? Result<void>() : flush(link);
}

Result<void> Load::flush(Link& link) {
  return link.connection.send(ByteSpan(link.requests).first(std::exchange(link.requests_bytes, 0)));
}

std::string Load::report() const {
  const auto operations = static_cast<double>(latencies_.count());
  const double iops = operations / elapsed_;
  const auto microseconds = [&](double share) {
    return static_cast<double>(latencies_.quantile(share)) / 1000;
  };
  return fmt::format(
      R"({{"operations": {}, "seconds": {:.6f}, "iops": {:.1f}, "mib_per_s": {:.3f}, )"
      R"("median_us": {:.3f}, "p99_us": {:.3f}, "client_cpu": {:.3f}}})",
      latencies_.count(), elapsed_, iops, iops * static_cast<double>(settings_.size) / (1 << 20),
      microseconds(0.5), microseconds(0.99), cpu_seconds_ / elapsed_);
}

}  // namespace underlay::bench
