// What two underlay-nbd processes say to each other when one hands its sockets and sessions to the
// other. Each message is one packet of a SOCK_SEQPACKET socket: magic, version, type, fields in big
// endian. Pure: bytes in, checked values out. The other process may be of another version.
//
//   successor                      running server
//   Hello ------------------------>
//         <------------------------ ExportInUse for each export that a client has, then ExportsEnd
//   Ready ------------------------>   (the successor has opened them and found them equal)
//                                     sessions stop at a request boundary
//         <------------------------ Listener, Waiting, SessionState; one descriptor with each
//         <------------------------ Inventory: that was all
//   Taken ------------------------>   (all has arrived and all exports are there)
//         <------------------------ Released: the only word after which the successor serves, and
//                                     the server never serves again
//
// Either side may say Refused, or just leave, at any time before Released: then the running server
// goes on with its sessions, and the successor ends.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "io/bytes.h"
#include "io/error.h"
#include "io/source.h"
#include "server/session_state.h"

namespace underlay::handover {

inline constexpr uint32_t kMagic = 0x55484f56;  // "UHOV"
inline constexpr uint16_t kVersion = 1;
// No packet is longer. The longest carries a receive buffer and a name.
inline constexpr size_t kMaxMessage = 32 << 10;
inline constexpr size_t kMaxReason = 1024;
inline constexpr size_t kMaxAddress = 512;

struct Hello {};
struct ExportInUse {
  ExportContent content;
};
struct ExportsEnd {};
struct Ready {};
// A listening socket.
struct Listener {
  enum class For : uint8_t { kClients, kSuccessors };
  For whom = For::kClients;
  bool tcp = false;
  std::string address;    // for messages
  std::string path;       // of the socket's file, "" when there is none to remove
  FileIdentity identity;  // of that file
};
struct Waiting {};  // a client that has connected and was not greeted
struct Inventory {  // how many of each have been sent
  uint32_t listeners = 0;
  uint32_t waiting = 0;
  uint32_t sessions = 0;
};
struct Taken {
  FileIdentity pid_file;  // the successor's, zeros without one
};
struct Released {};
struct Refused {
  std::string reason;
};

using Message = std::variant<Hello, ExportInUse, ExportsEnd, Ready, Listener, Waiting, SessionState,
                             Inventory, Taken, Released, Refused>;

// REQUIRES: strings and input within the limits above, of nbd::kMaxString and of limits.h; a longer
// reason is cut.
std::vector<std::byte> encode(const Message& message);
// Fails with kMalformed, and with kUnsupported for a version that is not known; a refusal is
// understood in every version.
Result<Message> decode(ByteSpan packet);
// How many descriptors travel with the message: 0 or 1.
size_t descriptors_with(const Message& message);

}  // namespace underlay::handover
