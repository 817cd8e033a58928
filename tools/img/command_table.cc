#include <array>

#include "tools/img/audit.h"
#include "tools/img/bench.h"
#include "tools/img/check.h"
#include "tools/img/command.h"
#include "tools/img/compare.h"
#include "tools/img/convert.h"
#include "tools/img/digest.h"
#include "tools/img/dump.h"
#include "tools/img/info.h"
#include "tools/img/map.h"
#include "tools/img/measure.h"

namespace underlay::img {

std::span<const Command> commands() {
  static const std::array kCommands{
      info_command(),     //
      map_command(),      //
      check_command(),    //
      audit_command(),    //
      compare_command(),  //
      digest_command(),   //
      convert_command(),  //
      dump_command(),     //
      bench_command(),    //
      measure_command(),
  };
  return kCommands;
}

}  // namespace underlay::img
