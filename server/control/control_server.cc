#include "server/control/control_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "server/control/control_commands.h"
#include "server/limits.h"

namespace underlay {
namespace {

using Clock = std::chrono::steady_clock;

// After accept() failed for want of descriptors or memory.
constexpr int kAcceptPauseMs = 500;

void raise(const UniqueFd& event) {
  const uint64_t one = 1;
  (void)!::write(event.get(), &one, sizeof(one));  // fails only when it is raised already
}

void lower(const UniqueFd& event) {
  uint64_t count = 0;
  (void)!::read(event.get(), &count, sizeof(count));
}

int milliseconds_until(Clock::time_point until) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
  return static_cast<int>(std::max<int64_t>(0, left.count()));
}

bool would_wait() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::start(std::optional<ListenSocket> socket,
                                                            Handlers handlers, Log& log) {
  std::unique_ptr<ControlServer> made(
      new ControlServer(std::move(socket), std::move(handlers), log));
  // A client may have gone again when its turn comes.
  if (made->socket_ && ::fcntl(made->socket_->fd.get(), F_SETFL, O_NONBLOCK) != 0) {
    return fail_errno(errno, "--control: the socket cannot be made non-blocking");
  }
  for (UniqueFd* event : {&made->reload_, &made->stop_}) {
    event->reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!event->valid()) return fail_errno(errno, "cannot create an eventfd");
  }
  ControlServer* server = made.get();
  made->thread_ = std::thread([server] { server->serve(); });
  return made;
}

ControlServer::~ControlServer() {
  if (!thread_.joinable()) return;
  raise(stop_);
  if (ended_.get_future().wait_for(limits::kHardShutdownTime) != std::future_status::ready) {
    log_.error("a file does not answer that was to be added: ending without it");
    socket_.reset();  // removes its file
    std::_Exit(EXIT_FAILURE);
  }
  thread_.join();
}

void ControlServer::ask_reload() { raise(reload_); }

void ControlServer::serve() {
  std::array<pollfd, 3> waiting{};
  waiting[0] = {.fd = stop_.get(), .events = POLLIN, .revents = 0};
  waiting[1] = {.fd = reload_.get(), .events = POLLIN, .revents = 0};
  waiting[2] = {.fd = socket_ ? socket_->fd.get() : -1, .events = POLLIN, .revents = 0};
  for (;;) {
    if (::poll(waiting.data(), waiting.size(), -1) < 0) continue;
    if (waiting[0].revents != 0) break;
    if (waiting[1].revents != 0) {
      lower(reload_);
      handlers_.reload();
    }
    if (waiting[2].revents != 0) accept_client();
  }
  ended_.set_value();
}

void ControlServer::accept_client() {
  const UniqueFd client(
      ::accept4(socket_->fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (client.valid()) return serve_client(client.get());
  if (would_wait() || errno == ECONNABORTED) return;
  log_.error(fmt::format("--control: cannot accept a client: {}", strerror(errno)));
  pollfd stopped{.fd = stop_.get(), .events = POLLIN, .revents = 0};
  (void)::poll(&stopped, 1, kAcceptPauseMs);
}

void ControlServer::serve_client(int client) {
  const auto line = read_line(client);
  if (!line) {
    log_.detail(line.error().to_string());
    return send_line(client, control_error(line.error()));
  }
  if (!line->empty()) send_line(client, handlers_.answer(*line));
}

// False when the time is up, or the server ends.
bool ControlServer::wait_for(int client, short events, Clock::time_point until) {
  std::array<pollfd, 2> waiting{};
  waiting[0] = {.fd = client, .events = events, .revents = 0};
  waiting[1] = {.fd = stop_.get(), .events = POLLIN, .revents = 0};
  for (;;) {
    const int ready = ::poll(waiting.data(), waiting.size(), milliseconds_until(until));
    if (ready >= 0) return ready > 0 && waiting[1].revents == 0;
  }
}

// Up to its end, or the end of what the client sends; "" when it says nothing at all.
Result<std::string> ControlServer::read_line(int client) {
  const auto until = Clock::now() + limits::kControlTime;
  std::string line;
  std::array<char, 16 << 10> part{};
  for (;;) {
    const ssize_t got = ::recv(client, part.data(), part.size(), 0);
    if (got == 0) return line;
    if (got > 0) {
      line.append(part.data(), static_cast<size_t>(got));
      const size_t end = line.find('\n', line.size() - static_cast<size_t>(got));
      if (std::min(end, line.size()) > limits::kControlCommand) {
        return fail(ErrorKind::kLimit, "--control: a command has at most {} bytes",
                    limits::kControlCommand);
      }
      if (end != std::string::npos) return line.substr(0, end);
      continue;
    }
    if (!would_wait()) return fail_errno(errno, "--control: cannot read from a client");
    if (!wait_for(client, POLLIN, until)) {
      return fail(ErrorKind::kLimit, "--control: a client took more than {} s for its command",
                  limits::kControlTime.count());
    }
  }
}

void ControlServer::send_line(int client, std::string line) {
  const auto until = Clock::now() + limits::kControlTime;
  line += '\n';
  std::string_view left = line;
  while (!left.empty()) {
    const ssize_t sent = ::send(client, left.data(), left.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      left.remove_prefix(static_cast<size_t>(sent));
    } else if (!would_wait() || !wait_for(client, POLLOUT, until)) {
      return log_.detail("--control: a client did not take its answer");
    }
  }
}

}  // namespace underlay
