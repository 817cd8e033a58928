#include "tests/bench/load/settings.h"

#include <boost/program_options.hpp>
#include <iostream>

#include "server/nbd_protocol.h"

namespace underlay::bench {
namespace {

namespace po = boost::program_options;

// Requests of one connection are sent without looking at replies in between. More than these may
// not fit a socket's buffer, and client and server would wait for each other.
constexpr unsigned kMaxDepthPerConnection = 256;
constexpr unsigned kMaxConnections = 4096;

struct Words {
  std::string tcp;
  std::string pattern;
};

po::options_description describe(Settings& settings, Words& words) {
  po::options_description options("nbd-load SOCKET | --tcp HOST:PORT [OPTIONS]");
  auto add = options.add_options();
  add("help,h", "show this");
  add("socket", po::value(&settings.socket), "unix socket");
  add("tcp", po::value(&words.tcp), "HOST:PORT instead");
  add("export", po::value(&settings.export_name), "name of the export");
  add("size", po::value(&settings.size), "bytes of one read");
  add("depth", po::value(&settings.depth), "reads under way, all connections together");
  add("connections", po::value(&settings.connections), "the depth is dealt out over these");
  add("pattern", po::value(&words.pattern)->default_value("random"),
      "random, or sequential: one stream, whatever the number of connections");
  add("from", po::value(&settings.from), "first byte to read");
  add("range", po::value(&settings.range), "bytes from there on that reads keep within");
  add("batch", po::bool_switch(&settings.batch),
      "one send for all requests that the replies of one receive allow; else one send for each");
  add("discard", po::bool_switch(&settings.discard),
      "drop payload in the kernel instead of receiving it; headers are received one by one");
  add("operations", po::value(&settings.operations), "end after so many reads");
  add("seconds", po::value(&settings.seconds), "or after so long");
  add("verify", po::value(&settings.verify), "compare every reply with this raw image");
  add("seed", po::value(&settings.seed), "of the random offsets");
  return options;
}

Result<void> check(Settings& settings, const Words& words) {
  const auto colon = words.tcp.rfind(':');
  if (words.tcp.empty() == settings.socket.empty() ||
      (!words.tcp.empty() && colon == std::string::npos)) {
    return fail(ErrorKind::kUsage, "give the path of a unix socket, or --tcp HOST:PORT");
  }
  if (!words.tcp.empty()) {
    settings.host = words.tcp.substr(0, colon);
    settings.port = words.tcp.substr(colon + 1);
  }
  if (words.pattern != "random" && words.pattern != "sequential") {
    return fail(ErrorKind::kUsage, "--pattern {}: random or sequential", words.pattern);
  }
  settings.sequential = words.pattern == "sequential";
  if (settings.size == 0 || settings.size > nbd::kMaxPayload) {
    return fail(ErrorKind::kUsage, "--size {}: 1 to {}", settings.size, nbd::kMaxPayload);
  }
  if (settings.connections == 0 || settings.connections > kMaxConnections) {
    return fail(ErrorKind::kUsage, "--connections {}: 1 to {}", settings.connections,
                kMaxConnections);
  }
  if (settings.depth < settings.connections ||
      settings.depth > settings.connections * kMaxDepthPerConnection) {
    return fail(ErrorKind::kUsage, "--depth {}: 1 to {} for each connection", settings.depth,
                kMaxDepthPerConnection);
  }
  if (settings.discard && !settings.verify.empty()) {
    return fail(ErrorKind::kUsage, "--discard drops what --verify compares: give one of them");
  }
  if (settings.export_name.size() > nbd::kMaxString) {
    return fail(ErrorKind::kUsage, "--export: at most {} bytes", nbd::kMaxString);
  }
  return {};
}

}  // namespace

Result<std::optional<Settings>> parse_settings(int argc, char** argv) {
  Settings settings;
  Words words;
  const auto options = describe(settings, words);
  try {
    po::positional_options_description positional;
    positional.add("socket", 1);
    po::variables_map given;
    po::store(po::command_line_parser(argc, argv).options(options).positional(positional).run(),
              given);
    po::notify(given);
    if (given.count("help") != 0) {
      std::cout << options;
      return std::optional<Settings>();
    }
  } catch (const po::error& error) {
    return fail(ErrorKind::kUsage, "{}", error.what());
  }
  TRY(check(settings, words));
  return std::optional<Settings>(settings);
}

}  // namespace underlay::bench
