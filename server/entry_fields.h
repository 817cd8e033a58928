// What an entry of the journal has besides its words, so that journalctl finds it: the names of our
// fields stand here, and in underlay-nbd(8).
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

#include "io/error.h"
#include "io/journal.h"
#include "server/client_registry.h"
#include "server/request.h"

namespace underlay {

// LogFields of what is known at the place that logs; each call adds what it is about.
class EntryFields {
 public:
  // UNDERLAY_EXPORT, empty for the default export.
  EntryFields& exported(std::string_view name);
  // UNDERLAY_CLIENT (as "ctl clients" counts them), and its peer.
  EntryFields& client(const ConnectedClient& client);
  // UNDERLAY_PEER_ADDRESS, or UNDERLAY_PEER_PID and UNDERLAY_PEER_UID of a Unix socket.
  EntryFields& peer(const PeerName& peer);
  // UNDERLAY_COMMAND (its number), UNDERLAY_OFFSET, UNDERLAY_LENGTH: bytes of the export.
  EntryFields& request(const Request& request);
  // UNDERLAY_FILE, UNDERLAY_FILE_OFFSET and ERRNO, as far as the error has them.
  EntryFields& error(const Error& error);
  // UNDERLAY_FILE, UNDERLAY_FILE_OFFSET
  EntryFields& file(std::string_view name);
  EntryFields& file_offset(uint64_t offset);
  // ERRNO, unless it is 0.
  EntryFields& system_error(int error_number);
  // UNDERLAY_DURATION_US
  EntryFields& duration(std::chrono::steady_clock::duration took);

  operator const LogFields&() const { return fields_; }

 private:
  EntryFields& number(std::string_view name, uint64_t value);

  LogFields fields_;
};

}  // namespace underlay
