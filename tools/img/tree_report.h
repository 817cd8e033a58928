// What `digest --verify` found, printed as it is found.
#pragma once

#include <string>

#include "tools/img/disk_walk.h"
#include "tools/img/hash_tree_verifier.h"
#include "tools/img/say.h"

namespace underlay::img {

class TreeReport {
 public:
  // nullopt: nothing is printed (-q).
  TreeReport(std::optional<OutputFormat> output, std::string image, std::string tree)
      : output_(output), image_(std::move(image)), tree_(std::move(tree)) {}

  void begin(const HashTreeSuperblock& superblock, const ShortBytes& root);
  void add(const TreeDamage& damage);
  // `failure`: why not all was verified, null when all was.
  void end(const WalkCounts& counts, const Error* failure);

  bool is_clean() const { return damaged_ == 0 && unverifiable_ == 0; }

 private:
  std::optional<OutputFormat> output_;
  std::string image_;
  std::string tree_;
  bool is_first_ = true;
  uint64_t damaged_ = 0;  // bytes
  uint64_t unverifiable_ = 0;
};

}  // namespace underlay::img
