// The findings of a check: printed when they come, or listed as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "formats/inspection/finding.h"

namespace underlay::img {

class FindingList {
 public:
  // With `prints` on standard error, a line each; else they are kept for json().
  explicit FindingList(bool prints) : prints_(prints) {}

  bool prints() const { return prints_; }
  void add(const Finding& finding);
  // Behind the last one: prints that there were `untold` more.
  void finish(uint64_t untold) const;

  const nlohmann::ordered_json& json() const { return listed_; }

 private:
  bool prints_;
  nlohmann::ordered_json listed_ = nlohmann::ordered_json::array();
};

}  // namespace underlay::img
