#include "server/metrics/metrics_server.h"

#include <fcntl.h>
#include <microhttpd.h>
#include <unistd.h>

#include <cerrno>

#include "io/on_demand.h"
#include "server/limits.h"

namespace underlay {
namespace {

const LibraryOnDemand& library() {
  static const LibraryOnDemand loaded("libmicrohttpd.so.12");
  return loaded;
}

MHD_Result answer(MHD_Connection* connection, unsigned status, const char* type, std::string text) {
  const LibraryOnDemand& mhd = library();
  MHD_Response* const response = mhd.call<&MHD_create_response_from_buffer>(
      "MHD_create_response_from_buffer", text.size(), static_cast<void*>(text.data()),
      MHD_RESPMEM_MUST_COPY);
  if (response == nullptr) return MHD_NO;
  mhd.call<&MHD_add_response_header>("MHD_add_response_header", response,
                                     MHD_HTTP_HEADER_CONTENT_TYPE, type);
  const MHD_Result queued =
      mhd.call<&MHD_queue_response>("MHD_queue_response", connection, status, response);
  mhd.call<&MHD_destroy_response>("MHD_destroy_response", response);
  return queued;
}

// Called by the library for each request, first without and then with its body's end.
MHD_Result on_request(void* text, MHD_Connection* connection, const char* url, const char* method,
                      const char*, const char*, size_t*, void** state) {
  static char seen;
  if (*state == nullptr) {
    *state = &seen;
    return MHD_YES;
  }
  const std::string_view verb(method);
  if (verb != MHD_HTTP_METHOD_GET && verb != MHD_HTTP_METHOD_HEAD) {
    return answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", "only GET\n");
  }
  if (std::string_view(url) != "/metrics") {
    return answer(connection, MHD_HTTP_NOT_FOUND, "text/plain", "see /metrics\n");
  }
  const auto& make = *static_cast<const std::function<std::string()>*>(text);
  return answer(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", make());
}

}  // namespace

Result<void> MetricsServer::load() {
  if (library().is_there()) return {};
  return fail(ErrorKind::kUnsupported,
              "--metrics: libmicrohttpd.so.12 cannot be loaded: install the package "
              "libmicrohttpd12");
}

Result<std::unique_ptr<MetricsServer>> MetricsServer::start(std::vector<ListenSocket> sockets,
                                                            std::function<std::string()> text) {
  std::unique_ptr<MetricsServer> made(new MetricsServer(std::move(text)));
  made->sockets_ = std::move(sockets);
  for (const ListenSocket& socket : made->sockets_) TRY(made->add(socket));
  return made;
}

Result<void> MetricsServer::add(const ListenSocket& socket) {
  // The library closes what it listens on.
  const int own = ::fcntl(socket.fd.get(), F_DUPFD_CLOEXEC, 0);
  if (own < 0) return fail_errno(errno, "--metrics: no descriptor is left");
  MHD_Daemon* const daemon = library().function<&MHD_start_daemon>("MHD_start_daemon")(
      MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, 0, nullptr, nullptr, &on_request,
      const_cast<std::function<std::string()>*>(&text_), MHD_OPTION_LISTEN_SOCKET, own,
      MHD_OPTION_CONNECTION_LIMIT, limits::kMetricsConnections, MHD_OPTION_CONNECTION_TIMEOUT,
      static_cast<unsigned>(limits::kMetricsTime.count()), MHD_OPTION_CONNECTION_MEMORY_LIMIT,
      limits::kMetricsMemory, MHD_OPTION_END);
  if (daemon == nullptr) {
    ::close(own);
    return fail(ErrorKind::kIo, "--metrics: cannot serve on {}", socket.address);
  }
  daemons_.push_back(daemon);
  return {};
}

MetricsServer::~MetricsServer() {
  for (MHD_Daemon* daemon : daemons_) {
    library().call<&MHD_stop_daemon>("MHD_stop_daemon", daemon);
  }
}

}  // namespace underlay
