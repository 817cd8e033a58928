// A command line as a person would type it.
#pragma once

#include <span>
#include <string>

namespace underlay::thin {

// Quoted where a shell would take a word for something else.
std::string shell_words(std::span<const std::string> command);

}  // namespace underlay::thin
