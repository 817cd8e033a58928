#include "tools/thin/origin_table.h"

#include <linux/major.h>

#include <algorithm>

namespace underlay::thin {
namespace {

DmTarget linear(uint64_t start, uint64_t sectors, const std::string& device, uint64_t from) {
  return {.start = start,
          .sectors = sectors,
          .type = "linear",
          .params = fmt::format("{} {}", device, from)};
}

bool is_nbd(const std::string& device) {
  return device.starts_with(std::to_string(NBD_MAJOR) + ":");
}

}  // namespace

std::vector<DmTarget> server_table(uint64_t sectors, const std::string& server) {
  return {linear(0, sectors, server, 0)};
}

std::vector<DmTarget> direct_table(const std::vector<DirectRun>& runs,
                                   const std::vector<std::string>& files,
                                   const std::string& server) {
  std::vector<DmTarget> targets;
  targets.reserve(runs.size());
  for (const DirectRun& run : runs) {
    switch (run.kind) {
      case DirectRun::Kind::kFile:
        targets.push_back(linear(run.start, run.sectors, files[run.file], run.file_sector));
        break;
      case DirectRun::Kind::kZero:
        targets.push_back(
            {.start = run.start, .sectors = run.sectors, .type = "zero", .params = ""});
        break;
      case DirectRun::Kind::kServer:
        targets.push_back(linear(run.start, run.sectors, server, run.start));
        break;
    }
  }
  return targets;
}

Result<OriginShare> share_of(const std::vector<DmTarget>& targets) {
  OriginShare share;
  for (const DmTarget& target : targets) {
    const std::string device = target.params.substr(0, target.params.find(' '));
    if (target.type == "zero") {
      share.zero_sectors += target.sectors;
    } else if (target.type != "linear") {
      return fail(ErrorKind::kMalformed, "has a target \"{}\", which no origin has",
                  printable(target.type, 80));
    } else if (is_nbd(device)) {
      share.server_sectors += target.sectors;
      share.server = device;
    } else {
      share.file_sectors += target.sectors;
      if (std::find(share.files.begin(), share.files.end(), device) == share.files.end()) {
        share.files.push_back(device);
      }
    }
  }
  return share;
}

}  // namespace underlay::thin
