// What there is to know about an image before it is put under a volume. Images are not trusted:
// they are opened and mapped in a child process without root's rights (as kServiceUser when there
// is one), which sends back values and open descriptors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/error.h"
#include "io/unique_fd.h"
#include "tools/thin/direct_map.h"
#include "tools/thin/registry.h"

namespace underlay::thin {

// How the operator named an image.
struct ImageChoice {
  std::string location;          // path, FILE#MEMBER of an archive, URL, or NBD URI
  std::string format{};          // "" = guess, but never raw
  std::string backing_format{};  // "" = as the image states
  std::vector<std::string> allow_paths{};
  std::vector<std::string> parents{};  // CHILD=PATH, as --parent has them
};
bool is_nbd_uri(const std::string& location);

// The image of a record, to be planned again.
ImageChoice choice_of(const ImageRecord& image);

struct ImagePlan {
  // Absolute, without symbolic links, or a URL; of a block device the name that was given (its
  // folder resolved), because names like /dev/VG/LV survive a boot and what they lead to does not.
  std::string location;
  std::string format;
  uint64_t size = 0;             // bytes, a multiple of 512
  std::vector<FileStamp> files;  // of the chain
  // With `direct`: the runs, and for each of their files a descriptor opened by the child and
  // checked here to be a regular file or block device, with its path (for messages).
  bool direct = false;
  std::vector<DirectRun> runs;
  std::vector<UniqueFd> descriptors;
  std::vector<std::string> paths;
  uint64_t file_sectors = 0, zero_sectors = 0, server_sectors = 0;
  std::string reason;  // as DirectMap::reason; why not direct
  std::vector<std::string> warnings;
};

enum class PlanFor : uint8_t { kStamps, kDirectMap };

// Opens `choice` (no URI) in an unprivileged child. Bounded in time and memory. An image whose
// disk cannot be mapped as a whole is no error: `direct` is false then, and `reason` says why.
// REQUIRES: this process has one thread only.
Result<ImagePlan> plan_image(const ImageChoice& choice, PlanFor purpose);

// A run of guest bytes that the image has data for (what a hydration must copy): everything that is
// not zero. In sectors, ascending, merged.
struct AllocatedRun {
  uint64_t start = 0;
  uint64_t sectors = 0;
  bool operator==(const AllocatedRun&) const = default;
};
std::vector<AllocatedRun> allocated_runs(const std::vector<DirectRun>& runs);

// Fails, naming file and difference, when an image is not what the record says any more. Looks at
// the files that the record names: that the chain still consists of these, and not of others that
// a link leads to now, only a new plan shows.
Result<void> check_unchanged(const ImageRecord& image);
// The same of its objects on servers: opens them as plan_image() does. A server that was opened
// before serves what is recorded, when this says so after it has been. REQUIRES: as plan_image().
Result<void> check_objects(const ImageRecord& image);
// The same of a plan that was just made of the image.
Result<void> check_unchanged(const ImageRecord& image, const ImagePlan& plan);

}  // namespace underlay::thin
