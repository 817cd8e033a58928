#include "server/predecessor.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "server/limits.h"

namespace underlay {

using handover::Listener;
using handover::Received;

namespace {

constexpr size_t kMaxListeners = 64;

template <class T>
bool has_option(int fd, int option, T wanted) {
  T value{};
  socklen_t length = sizeof(value);
  return ::getsockopt(fd, SOL_SOCKET, option, &value, &length) == 0 && value == wanted;
}

Result<void> check_socket(int fd, int type, bool listens) {
  if (has_option(fd, SO_TYPE, type) && has_option(fd, SO_ACCEPTCONN, listens ? 1 : 0)) return {};
  return fail(ErrorKind::kMalformed, "the running server hands over a descriptor of a wrong kind");
}

// Milliseconds for poll().
int time_left(std::chrono::steady_clock::time_point end) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
  return static_cast<int>(std::max<std::chrono::milliseconds::rep>(left.count(), 0));
}

Result<Received> unless_refused(Result<Received> received) {
  if (!received) return received;
  if (const auto* refused = std::get_if<handover::Refused>(&received->message)) {
    return fail(ErrorKind::kDenied, "the running server refuses: {}", printable(refused->reason));
  }
  return received;
}

Failure out_of_place() {
  return fail(ErrorKind::kMalformed, "the running server says something that has no place there");
}

}  // namespace

Result<Predecessor> Predecessor::connect(const std::string& path, int interrupt) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return fail(ErrorKind::kUsage, "--take-over: the socket path has {} bytes, and the limit is {}",
                path.size(), sizeof(address.sun_path) - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return fail_errno(errno, "cannot make a socket");
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (::connect(socket.get(), generic, sizeof(address)) != 0) {
    return in_file(fail_errno(errno, "--take-over: no server listens here for a successor"), path);
  }
  const auto pid = handover::trusted_peer(socket.get());
  if (!pid) return in_file(pid.error(), path);
  return Predecessor(std::move(socket), *pid, interrupt);
}

Result<void> Predecessor::say(const handover::Message& message) {
  auto said = handover::send_now(socket_.get(), message);
  if (said) return said;
  // A server that has left may have said why.
  auto reason = unless_refused(handover::receive_now(socket_.get()));
  return reason ? std::move(said) : Result<void>(Failure(std::move(reason).error()));
}

Result<Received> Predecessor::next() {
  const auto end = std::chrono::steady_clock::now() + limits::kHandoverAnswer;
  while (true) {
    std::array<pollfd, 2> waits{pollfd{socket_.get(), POLLIN, 0}, pollfd{interrupt_, POLLIN, 0}};
    const int ready = ::poll(waits.data(), waits.size(), time_left(end));
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return fail_errno(errno, "cannot wait for the running server");
    if (ready == 0) return last_word();
    if (waits[0].revents != 0) return unless_refused(handover::receive_now(socket_.get()));
    return fail(ErrorKind::kIo, "a signal asked to stop before all was handed over");
  }
}

// What it has said before the time was up counts; what it says later, it is told to have failed.
Result<Received> Predecessor::last_word() {
  ::shutdown(socket_.get(), SHUT_RDWR);
  auto received = unless_refused(handover::receive_now(socket_.get()));
  if (received && std::holds_alternative<handover::Released>(received->message)) return received;
  return fail(ErrorKind::kIo, "the running server does not answer for {} s",
              limits::kHandoverAnswer.count() / 1000);
}

Result<std::shared_ptr<Export>> Predecessor::find(ExportCatalog& catalog,
                                                  const ExportContent& content) {
  const auto held = exports_.find(content.name);
  const std::string name = printable(content.name, 80);
  if (held == exports_.end()) {
    auto opened = without_exceptions([&] { return catalog.open(content.name); });
    if (!opened) {
      return with_context(std::move(opened).error(),
                          fmt::format("a client uses the export \"{}\": ", name));
    }
    exports_.emplace(content.name, *std::move(opened));
  }
  std::shared_ptr<Export> found = exports_.at(content.name);
  const ExportContent own = found->content();
  if (own.size != content.size) {
    return fail(ErrorKind::kUsage,
                "a client uses the export \"{}\" of {} bytes, and here it has {} bytes", name,
                content.size, own.size);
  }
  if (own != content) {
    return fail(ErrorKind::kUsage,
                "a client uses the export \"{}\", which is made of other files here, or is another "
                "part or snapshot of them",
                name);
  }
  return found;
}

Result<void> Predecessor::open_exports(ExportCatalog& catalog) {
  TRY(say(handover::Hello{}));
  while (true) {
    const Received received = TRY(next());
    if (std::holds_alternative<handover::ExportsEnd>(received.message)) break;
    const auto* in_use = std::get_if<handover::ExportInUse>(&received.message);
    if (in_use == nullptr || exports_.size() >= limits::kConnections) return out_of_place();
    TRY(find(catalog, in_use->content));
  }
  return say(handover::Ready{});
}

Result<void> Predecessor::receive(ExportCatalog& catalog) {
  while (true) {
    Received received = TRY(next());
    if (const auto* all = std::get_if<handover::Inventory>(&received.message)) {
      return check_complete(*all);
    }
    TRY(keep(catalog, std::move(received)));
  }
}

Result<void> Predecessor::keep(ExportCatalog& catalog, Received received) {
  const int fd = received.descriptor.get();
  if (auto* listener = std::get_if<Listener>(&received.message)) {
    const bool successors = listener->whom == Listener::For::kSuccessors;
    TRY(check_socket(fd, successors ? SOCK_SEQPACKET : SOCK_STREAM, true));
    if (listening_.size() >= kMaxListeners) return out_of_place();
    listening_.push_back({std::move(received.descriptor), std::move(*listener)});
    return {};
  }
  auto* state = std::get_if<SessionState>(&received.message);
  const bool waiting = std::holds_alternative<handover::Waiting>(received.message);
  const bool room = waiting_.size() + sessions_.size() < 2 * limits::kConnections;
  if ((state == nullptr && !waiting) || !room) return out_of_place();
  TRY(check_socket(fd, SOCK_STREAM, false));
  if (waiting) {
    waiting_.push_back(std::move(received.descriptor));
    return {};
  }
  auto exported = TRY(find(catalog, state->content));
  sessions_.push_back({.socket = std::move(received.descriptor),
                       .state = std::move(*state),
                       .exported = std::move(exported)});
  return {};
}

Result<void> Predecessor::check_complete(const handover::Inventory& inventory) const {
  if (inventory.listeners == listening_.size() && inventory.waiting == waiting_.size() &&
      inventory.sessions == sessions_.size()) {
    return {};
  }
  return fail(ErrorKind::kMalformed,
              "{} of {} sockets and {} of {} clients have arrived from the running server",
              listening_.size(), inventory.listeners, waiting_.size() + sessions_.size(),
              uint64_t{inventory.waiting} + inventory.sessions);
}

Result<Inheritance> Predecessor::take(FileIdentity own_pid_file) {
  TRY(say(handover::Taken{own_pid_file}));
  const Received received = TRY(next());
  if (!std::holds_alternative<handover::Released>(received.message)) return out_of_place();
  Inheritance all;
  for (Listening& listening : listening_) {
    ListenSocket socket;
    socket.fd = std::move(listening.fd);
    socket.tcp = listening.about.tcp;
    socket.address = std::move(listening.about.address);
    if (!listening.about.path.empty()) {
      socket.file = SocketFile(std::move(listening.about.path), listening.about.identity);
    }
    const bool successors = listening.about.whom == Listener::For::kSuccessors;
    (successors ? all.for_successor : all.sockets).push_back(std::move(socket));
  }
  all.waiting = std::move(waiting_);
  all.sessions = std::move(sessions_);
  return all;
}

void Predecessor::tell(const Error& error) {
  (void)handover::send_now(socket_.get(), handover::Refused{error.to_string()});
}

}  // namespace underlay
