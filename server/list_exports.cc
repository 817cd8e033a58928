#include "server/list_exports.h"

#include <libnbd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <vector>

namespace underlay {
namespace {

constexpr std::chrono::seconds kTimeLimit{10};
// The server is not trusted: it may not make this list grow without end.
constexpr size_t kMaxExports = 10000;
constexpr size_t kMaxContexts = 1000;

struct FoundExport {
  std::string name;
  std::string description;
};

// What one option of the handshake collects; libnbd hands it to the callbacks below.
struct Answer {
  std::vector<FoundExport> exports;
  std::vector<std::string> contexts;
  bool too_many = false;
  bool done = false;
};

int on_export(void* data, const char* name, const char* description) {
  auto& answer = *static_cast<Answer*>(data);
  answer.too_many = answer.exports.size() == kMaxExports;
  if (answer.too_many) return -1;
  answer.exports.push_back({.name = name, .description = description});
  return 0;
}

int on_context(void* data, const char* name) {
  auto& answer = *static_cast<Answer*>(data);
  answer.too_many = answer.contexts.size() == kMaxContexts;
  if (answer.too_many) return -1;
  answer.contexts.emplace_back(name);
  return 0;
}

int on_done(void* data, int* error) {
  auto& answer = *static_cast<Answer*>(data);
  answer.done = *error == 0;
  return 1;
}

// A connection to the server that is asked, with one time limit for all of it.
class Peer {
 public:
  explicit Peer(std::string address) : address_(std::move(address)) {}

  Result<void> connect(const Options& options) {
    if (!handle_ || ::nbd_set_opt_mode(handle_.get(), true) != 0) return failure("cannot connect");
    if (options.tls_creds && !demand_tls(*options.tls_creds)) return failure("cannot use TLS");
    const int started =
        options.socket_path.empty()
            ? ::nbd_aio_connect_tcp(handle_.get(), host(options), options.port.c_str())
            : ::nbd_aio_connect_unix(handle_.get(), options.socket_path.c_str());
    if (started != 0) return failure("cannot connect");
    return finish("cannot connect");
  }

  // A server of the oldstyle protocol negotiates nothing and has one export, which has no name.
  bool oldstyle() const { return ::nbd_aio_is_negotiating(handle_.get()) != 1; }

  Result<std::vector<FoundExport>> exports() {
    if (oldstyle()) return std::vector<FoundExport>(1);
    answer_ = {};
    const nbd_list_callback each{.callback = on_export, .user_data = &answer_, .free = nullptr};
    if (::nbd_aio_opt_list(handle_.get(), each, done_callback()) != 0) {
      return failure("cannot list the exports");
    }
    TRY(finish_answer("cannot list the exports"));
    return std::move(answer_.exports);
  }

  // The questions below are about this export from here on.
  Result<void> choose(const std::string& name) {
    const std::string what = fmt::format("cannot describe the export \"{}\"", printable(name));
    if (oldstyle()) return {};
    answer_ = {};
    if (::nbd_set_export_name(handle_.get(), name.c_str()) != 0 ||
        ::nbd_aio_opt_info(handle_.get(), done_callback()) != 0) {
      return failure(what);
    }
    return finish_answer(what);
  }

  Result<std::vector<std::string>> contexts() {
    answer_ = {};
    const nbd_context_callback each{.callback = on_context, .user_data = &answer_, .free = nullptr};
    if (::nbd_aio_opt_list_meta_context(handle_.get(), each, done_callback()) != 0) {
      return failure("cannot list the meta contexts");
    }
    TRY(finish_answer("cannot list the meta contexts"));
    return std::move(answer_.contexts);
  }

  void disconnect() {
    if (oldstyle()) return;
    if (::nbd_aio_opt_abort(handle_.get()) == 0) (void)finish("cannot disconnect");
  }

  nbd_handle* handle() const { return handle_.get(); }

  Failure failure(std::string_view what) const {
    const char* reason = ::nbd_get_error();
    return fail(ErrorKind::kIo, "{}: {}: {}", address_, what, reason == nullptr ? "?" : reason);
  }

 private:
  struct Close {
    void operator()(nbd_handle* handle) const { ::nbd_close(handle); }
  };

  // libnbd reads the same files in the same folder as qemu does.
  bool demand_tls(const TlsObject& object) {
    nbd_handle* const handle = handle_.get();
    if (::nbd_set_tls(handle, LIBNBD_TLS_REQUIRE) != 0) return false;
    if (object.kind == TlsObject::Kind::kX509) {
      return ::nbd_set_tls_certificates(handle, object.folder.c_str()) == 0 &&
             ::nbd_set_tls_verify_peer(handle, object.verify_peer) == 0;
    }
    return ::nbd_set_tls_username(handle, object.user.c_str()) == 0 &&
           ::nbd_set_tls_psk_file(handle, (object.folder + "/keys.psk").c_str()) == 0;
  }

  // qemu-nbd's default address to listen on means this machine to a client, too.
  static const char* host(const Options& options) {
    return options.bind_address.empty() ? "localhost" : options.bind_address.c_str();
  }

  nbd_completion_callback done_callback() {
    return {.callback = on_done, .user_data = &answer_, .free = nullptr};
  }

  // Runs the connection until the server has answered.
  Result<void> finish(std::string_view what) {
    while (::nbd_aio_is_connecting(handle_.get()) == 1) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline_ - std::chrono::steady_clock::now());
      if (left.count() <= 0) {
        return fail(ErrorKind::kIo, "{}: {}: no answer within {} seconds", address_, what,
                    kTimeLimit.count());
      }
      if (::nbd_poll(handle_.get(), static_cast<int>(left.count())) < 0) return failure(what);
    }
    if (::nbd_aio_is_dead(handle_.get()) == 1) return failure(what);
    return {};
  }

  Result<void> finish_answer(std::string_view what) {
    TRY(finish(what));
    if (answer_.too_many) {
      return fail(ErrorKind::kLimit, "{}: {}: more than {} answers", address_, what,
                  answer_.contexts.empty() ? kMaxExports : kMaxContexts);
    }
    if (answer_.done) return {};
    return fail(ErrorKind::kIo, "{}: {}: the server refuses", address_, what);
  }

  std::string address_;
  Answer answer_;  // libnbd has its address: outlives the handle
  std::unique_ptr<nbd_handle, Close> handle_{::nbd_create()};
  std::chrono::steady_clock::time_point deadline_ = std::chrono::steady_clock::now() + kTimeLimit;
};

// NBD protocol, "Transmission flags", in the order of their bits. NBD_FLAG_SEND_RESIZE is left
// out: libnbd does not tell.
struct Flag {
  unsigned bit;
  const char* name;
  int (*is_set)(nbd_handle*);
};
constexpr std::array kFlags = {
    Flag{1, "readonly", ::nbd_is_read_only},
    Flag{2, "flush", ::nbd_can_flush},
    Flag{3, "fua", ::nbd_can_fua},
    Flag{4, "rotational", ::nbd_is_rotational},
    Flag{5, "trim", ::nbd_can_trim},
    Flag{6, "zeroes", ::nbd_can_zero},
    Flag{7, "df", ::nbd_can_df},
    Flag{8, "multi", ::nbd_can_multi_conn},
    Flag{10, "cache", ::nbd_can_cache},
    Flag{11, "fast-zero", ::nbd_can_fast_zero},
};

Result<void> print_flags(const Peer& peer, std::ostream& out) {
  unsigned flags = 1;  // NBD_FLAG_HAS_FLAGS
  std::string names;
  for (const Flag& flag : kFlags) {
    const int set = flag.is_set(peer.handle());
    if (set < 0) return peer.failure(fmt::format("cannot tell the flag {}", flag.name));
    if (set == 0) continue;
    flags |= 1u << flag.bit;
    names += fmt::format(" {}", flag.name);
  }
  out << fmt::format("  flags: 0x{:x} ({} )\n", flags, names);
  return {};
}

// A server that states no block sizes leaves the lines out.
Result<void> print_block_sizes(const Peer& peer, std::ostream& out) {
  constexpr std::array<std::pair<const char*, int>, 3> kSizes = {
      {{"min", LIBNBD_SIZE_MINIMUM}, {"opt", LIBNBD_SIZE_PREFERRED}, {"max", LIBNBD_SIZE_MAXIMUM}}};
  for (const auto& [name, kind] : kSizes) {
    const int64_t size = ::nbd_get_block_size(peer.handle(), kind);
    if (size < 0) return peer.failure("cannot tell the block sizes");
    if (size == 0 && kind == LIBNBD_SIZE_MINIMUM) return {};
    out << fmt::format("  {} block: {}\n", name, size);
  }
  return {};
}

Result<void> print_contexts(Peer& peer, std::ostream& out) {
  if (::nbd_get_structured_replies_negotiated(peer.handle()) != 1) return {};
  const std::vector<std::string> contexts = TRY(peer.contexts());
  if (contexts.empty()) return {};
  out << fmt::format("  available meta contexts: {}\n", contexts.size());
  for (const std::string& context : contexts) {
    out << fmt::format("   {}\n", printable(context));
  }
  return {};
}

Result<void> print_export(Peer& peer, const FoundExport& found, std::ostream& out) {
  TRY(peer.choose(found.name));
  const int64_t size = ::nbd_get_size(peer.handle());
  if (size < 0) return peer.failure("cannot tell the size");
  out << fmt::format(" export: '{}'\n", printable(found.name));
  if (!found.description.empty()) {
    out << fmt::format("  description: {}\n", printable(found.description));
  }
  out << fmt::format("  size:  {}\n", size);
  TRY(print_flags(peer, out));
  TRY(print_block_sizes(peer, out));
  return print_contexts(peer, out);
}

}  // namespace

Result<void> list_exports(const Options& options, std::ostream& out) {
  Peer peer(options.socket_path.empty() ? fmt::format("{}:{}", options.bind_address, options.port)
                                        : options.socket_path);
  TRY(peer.connect(options));
  const std::vector<FoundExport> exports = TRY(peer.exports());
  out << fmt::format("exports available: {}\n", exports.size());
  for (const FoundExport& found : exports) TRY(print_export(peer, found, out));
  peer.disconnect();
  return {};
}

}  // namespace underlay
