// --help-limits.
#pragma once

#include <string>

namespace underlay {

// The budgets of limits.h and of the readers that a client or an image can meet, a line each: what
// it is, how much, and the option that changes it.
std::string limits_text();

}  // namespace underlay
