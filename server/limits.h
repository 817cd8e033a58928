// What clients may ask for. Each number is a budget with its reason.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace underlay::limits {

// Handshake. qemu-nbd's time limit (CVE-2024-7409: clients that never finish hold everything up).
inline constexpr std::chrono::milliseconds kHandshakeTime{10'000};
inline constexpr unsigned kHandshakeOptions =
    4096;  // asking for each of many exports is legitimate
// Longer option data is read and dropped, and answered with ERR_TOO_BIG...
inline constexpr size_t kStoredOption = 64 << 10;
// ...and above this the client is not worth listening to.
inline constexpr uint32_t kOptionLength = 32 << 20;
inline constexpr size_t kListedExports = 10'000;

// Connections, whatever -e allows.
inline constexpr unsigned kConnections = 4096;
// Of files, sockets and images, if the system's hard limit allows it.
inline constexpr unsigned kOpenFiles = 64 << 10;

// One connection.
inline constexpr size_t kReceiveBuffer = 16 << 10;  // some 500 requests
// A client that says nothing for one to two of these costs hardly any memory.
inline constexpr std::chrono::milliseconds kSilence{1'000};
inline constexpr unsigned kOperations = 256;      // that wait for a disk or a worker
inline constexpr unsigned kFarReads = 16;         // that wait for other machines, of all clients
inline constexpr unsigned kWorkerOperations = 4;  // of those, block status and prefetch
inline constexpr uint64_t kOperationBytes = 32ull
                                            << 20;  // their buffers; one request always passes
inline constexpr size_t kUnsentBytes = 1 << 20;     // replies that wait for the client
inline constexpr size_t kBatchBuffer = 256 << 10;   // replies that share a buffer
inline constexpr size_t kSendThreshold = 64 << 10;  // send as soon as this much is ready
// In one send, so that progress shows; in one turn, so that other clients of the thread have
// theirs.
inline constexpr size_t kSendBytes = 1 << 20;
// Reads of this length on are sent from where they lie (the page cache, unpacked clusters) without
// a copy. Shorter ones are cheaper copied, over TCP up to a greater length.
inline constexpr size_t kSendFile = 32 << 10;
inline constexpr size_t kSendFileTcp = 64 << 10;
inline constexpr size_t kReplyParts = 32;  // of one such read
// Of a Unix socket, asked for at the first such read; the system caps it.
inline constexpr size_t kSocketBuffer = 4 << 20;
inline constexpr size_t kInlineRead = 64 << 10;  // longer reads get a buffer of their own
inline constexpr size_t kInlineCopy = 1 << 20;   // longer ones are copied by a worker

// Encrypted connections: records that are sent at once. A power of two that holds several of 16
// KiB.
inline constexpr size_t kTlsBatch = 128 << 10;

// All connections together: memory for replies.
inline constexpr uint64_t kReplyMemory = 256ull << 20;
inline constexpr uint64_t kReplyReserve = 16ull
                                          << 20;  // of it, for headers and short replies alone
// Once half of it is in use, a connection gets such a part of what is left instead of kUnsentBytes,
// kOperationBytes and kBatchBuffer. Four thousand such parts leave megabytes.
inline constexpr uint64_t kScarceShare = 1024;
// When that memory is used up: how soon to ask again, and how long a client may leave its replies
// unread before it is dropped for the others' sake.
inline constexpr std::chrono::milliseconds kMemoryRetry{10};
inline constexpr std::chrono::seconds kUnreadTime{10};

// A read that failed for a reason that may pass: how often, and how soon, it is tried again before
// the client hears of it. Each wait is four times the one before: less than two seconds in all.
inline constexpr uint8_t kRetries = 4;
inline constexpr std::chrono::milliseconds kRetryFirst{20};
inline constexpr std::chrono::milliseconds kRetryLongest{1'000};

// How often a client is looked at whose next request must wait for its export's rate limit.
inline constexpr std::chrono::milliseconds kAdmissionLook{1'000};

// Prefetch: what one request may bring into memory; the rest of a longer one is left alone.
inline constexpr uint64_t kPrefetchBytes = 32ull << 20;

// Of whoever asks for metrics, on each address: connections, time for a request, memory of one.
inline constexpr unsigned kMetricsConnections = 4;
inline constexpr std::chrono::seconds kMetricsTime{10};
inline constexpr size_t kMetricsMemory = 32 << 10;

// Of whoever uses the control socket, one at a time: a command, the time to say it and to take the
// answer.
inline constexpr size_t kControlCommand = 1 << 20;
inline constexpr std::chrono::seconds kControlTime{5};

// Block status.
inline constexpr size_t kStatusExtents = 8 << 10;   // in one reply; the client asks again for more
inline constexpr unsigned kStatusSteps = 64 << 10;  // map() calls for one reply
// Of one export (-B): bits of Negotiated::dirty_bitmaps.
inline constexpr size_t kDirtyBitmaps = 32;

// After SIGTERM: for replies that are under way; then, for a file system that does not answer.
inline constexpr std::chrono::milliseconds kShutdownTime{5'000};
inline constexpr std::chrono::milliseconds kHardShutdownTime{15'000};
// Then: for what nobody waits for, and a server of images may never answer.
inline constexpr std::chrono::milliseconds kFetchesEndTime{1'000};

// Handing over to a successor. It opens the exports that are in use while the old server serves on.
inline constexpr std::chrono::milliseconds kSuccessorOpens{60'000};
// Then: for clients in their handshake to finish it, before anybody has to wait...
inline constexpr std::chrono::milliseconds kHandoverSettle{500};
// ...for requests that are under way; a client that does not let them be finished stays behind...
inline constexpr std::chrono::milliseconds kHandoverPause{1'000};
// ...and for all to arrive, and be confirmed. Nobody is served in that time.
inline constexpr std::chrono::milliseconds kHandoverTransfer{5'000};
// How long the successor waits for the old server's next word. Longer than all of the above but
// the first, so that the old server is the one to give up.
inline constexpr std::chrono::milliseconds kHandoverAnswer{20'000};

// How often files are looked at for changes.
inline constexpr std::chrono::milliseconds kChangeCheck{1'000};

}  // namespace underlay::limits
