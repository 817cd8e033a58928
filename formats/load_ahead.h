// For a process that will not be allowed to load libraries any more.
#pragma once

#include "formats/open_chain.h"

namespace underlay {

// Loads what opening images may load later: character sets, and the libraries that read what we do
// not. What is not installed stays missing, and is told when an image needs it. Takes some
// milliseconds.
void load_for_later_images(ReaderChoice reader);

}  // namespace underlay
