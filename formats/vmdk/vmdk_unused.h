// Sectors of an extent's file that nothing uses: what underlay-img check calls leaks.
#pragma once

#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "formats/inspection/check_report.h"
#include "formats/vmdk/vmdk_sector_map.h"
#include "formats/vmdk/vmdk_sparse_file.h"
#include "io/source.h"

namespace underlay {

// Of hosted extents and of COWD. (Which grains of seSparse are in use says its bitmap of free ones,
// whose layout is not known.)
class VmdkUnused {
 public:
  // The references outlive this. `is_image`: as in VmdkExtentToCheck.
  VmdkUnused(const Source& source, const VmdkSparseFile& file, CheckReport& report, bool is_image);

  // To be called of all windows of the map, in order, when all that is used is marked. Fails as
  // `keep_going`, which is asked now and then.
  using KeepGoing = std::function<Result<void>()>;
  Result<void> look_in(const VmdkSectorMap& map, const KeepGoing& keep_going);

 private:
  using Run = VmdkSectorMap::Run;

  Result<void> look_at(Run run, const KeepGoing& keep_going);
  void look_at_data(Run run);
  uint64_t count_streams(Run run);
  Result<std::vector<std::byte>> read(uint64_t sector, uint64_t end) const;

  const Source& source_;
  const VmdkGeometry& geometry_;
  CheckReport& report_;
  bool is_image_;
  Run all_;                          // where to look
  std::optional<uint64_t> pending_;  // where a run began that goes on in the next window
};

// Of the extent in `source`, which the message names unless it is the image.
Finding vmdk_finding(Finding::Kind kind, std::string_view code, const Source& source, bool is_image,
                     Error error, uint64_t offset);

}  // namespace underlay
