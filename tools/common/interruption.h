// SIGINT, SIGTERM and SIGHUP as a question that long work asks.
#pragma once

namespace underlay {

// From here on the first of these signals is only noted; the second ends the program as usual.
void note_interruptions();

// Has one come? Any thread.
bool is_interrupted();

// Ends the program as the noted signal would have: whoever waits for it sees that it was
// interrupted. Returns when none came.
void die_of_interruption();

}  // namespace underlay
