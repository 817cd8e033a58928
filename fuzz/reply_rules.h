// What server/reply.h and server/block_status.h promise of the replies to a request.
#pragma once

#include "server/export.h"
#include "server/request.h"

namespace underlay {

// A disk with data, zeros of both kinds, holes in two layers, and places that cannot be mapped; and
// the dirty bitmap "b".
const Export& fuzzed_export();

// Writes every reply that a valid request may get, and reads it as a client would. Aborts when a
// rule breaks.
void check_replies(const Request& request, const Negotiated& negotiated);

// The reply to a request that was refused.
void check_refusal(const Request& request, const Negotiated& negotiated, nbd::WireError error);

}  // namespace underlay
