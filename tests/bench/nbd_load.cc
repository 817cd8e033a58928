// nbd-load: reads from an NBD server as fast as it answers, and prints one line of JSON.
//   nbd-load SOCKET | --tcp HOST:PORT [OPTIONS]; --help lists them
// A server is measured, so this program must not be what limits: one thread, plain sockets, many
// replies in one receive. "client_cpu" is the share of a core that it used: near 1, it did limit.
#include <iostream>

#include "tests/bench/load/load.h"
#include "tests/bench/load/settings.h"

namespace underlay::bench {
namespace {

Result<void> run(int argc, char** argv) {
  const auto settings = TRY(parse_settings(argc, argv));
  if (!settings) return {};
  const auto load = TRY(Load::make(*settings));
  TRY(load->run());
  std::cout << load->report() << std::endl;
  return {};
}

}  // namespace
}  // namespace underlay::bench

int main(int argc, char** argv) {
  const auto done = underlay::bench::run(argc, argv);
  if (!done) std::cerr << "nbd-load: " << done.error().to_string() << '\n';
  return done ? 0 : 1;
}
