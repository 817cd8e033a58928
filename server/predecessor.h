// The successor's part of a hand-over: takes everything from the running server, in the
// conversation of handover_message.h. Blocks, so it runs before anybody is served.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/unique_fd.h"
#include "server/export.h"
#include "server/handover_socket.h"
#include "server/server.h"

namespace underlay {

// The steps in their order; when one fails, tell() it, and let go: the running server goes on.
class Predecessor {
 public:
  // `interrupt`: a descriptor that is readable once a signal asks to stop; stays the caller's.
  static Result<Predecessor> connect(const std::string& path, int interrupt);
  // 0 when it lives in another namespace.
  pid_t pid() const { return pid_; }

  // Opens the exports that it has clients for, while it serves on. Fails unless all are there with
  // the same content.
  Result<void> open_exports(ExportCatalog& catalog);
  // Receives sockets and sessions. From here on its clients wait.
  Result<void> receive(ExportCatalog& catalog);
  // Confirms. After success, the clients are ours alone. The running server ends when this object
  // does.
  Result<Inheritance> take(FileIdentity own_pid_file);

  // Says why it is not to be.
  void tell(const Error& error);

 private:
  // A socket whose file is not ours yet.
  struct Listening {
    UniqueFd fd;
    handover::Listener about;
  };

  Predecessor(UniqueFd socket, pid_t pid, int interrupt)
      : socket_(std::move(socket)), pid_(pid), interrupt_(interrupt) {}
  Result<void> say(const handover::Message& message);
  Result<handover::Received> next();
  Result<handover::Received> last_word();
  Result<std::shared_ptr<Export>> find(ExportCatalog& catalog, const ExportContent& content);
  Result<void> keep(ExportCatalog& catalog, handover::Received received);
  Result<void> check_complete(const handover::Inventory& inventory) const;

  UniqueFd socket_;
  pid_t pid_ = 0;
  int interrupt_ = -1;
  std::map<std::string, std::shared_ptr<Export>> exports_;
  std::vector<Listening> listening_;
  std::vector<UniqueFd> waiting_;
  std::vector<InheritedSession> sessions_;
};

}  // namespace underlay
