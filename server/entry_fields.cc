#include "server/entry_fields.h"

namespace underlay {

EntryFields& EntryFields::exported(std::string_view name) {
  fields_.push_back({"UNDERLAY_EXPORT", std::string(name)});
  return *this;
}

EntryFields& EntryFields::client(const ConnectedClient& client) {
  return number("UNDERLAY_CLIENT", client.id).peer(client.peer);
}

EntryFields& EntryFields::peer(const PeerName& peer) {
  if (!peer.address.empty()) {
    fields_.push_back({"UNDERLAY_PEER_ADDRESS", peer.address});
  } else if (peer.pid > 0) {
    number("UNDERLAY_PEER_PID", static_cast<uint64_t>(peer.pid));
    number("UNDERLAY_PEER_UID", peer.uid);
  }
  return *this;
}

EntryFields& EntryFields::request(const Request& request) {
  number("UNDERLAY_COMMAND", static_cast<uint64_t>(request.command));
  number("UNDERLAY_OFFSET", request.offset);
  return number("UNDERLAY_LENGTH", request.length);
}

EntryFields& EntryFields::error(const Error& error) {
  if (!error.file.empty()) file(error.file);
  if (error.offset) file_offset(*error.offset);
  return system_error(error.sys_errno);
}

EntryFields& EntryFields::file(std::string_view name) {
  fields_.push_back({"UNDERLAY_FILE", std::string(name)});
  return *this;
}

EntryFields& EntryFields::file_offset(uint64_t offset) {
  return number("UNDERLAY_FILE_OFFSET", offset);
}

EntryFields& EntryFields::system_error(int error_number) {
  if (error_number == 0) return *this;
  return number("ERRNO", static_cast<uint64_t>(error_number));
}

EntryFields& EntryFields::duration(std::chrono::steady_clock::duration took) {
  const auto microseconds = std::chrono::duration_cast<std::chrono::microseconds>(took);
  return number("UNDERLAY_DURATION_US", static_cast<uint64_t>(microseconds.count()));
}

EntryFields& EntryFields::number(std::string_view name, uint64_t value) {
  fields_.push_back({name, std::to_string(value)});
  return *this;
}

}  // namespace underlay
