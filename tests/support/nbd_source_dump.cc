// nbd-source-dump: an NBD export as io/nbd_source reads it, for tests.
//   nbd-source-dump read URI ANSWER_MS THREADS UNIT
// writes its bytes to standard output; the threads take turns with units of that many bytes.
//   nbd-source-dump failures URI ANSWER_MS THREADS UNIT
// prints how many of these reads failed.
//   nbd-source-dump map URI ANSWER_MS STEP
// prints the runs, "OFFSET LENGTH data|hole|reserved", asking for at most STEP bytes at a time.
#include <fmt/format.h>

#include <atomic>
#include <cstdio>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "io/nbd_source.h"
#include "tests/support/read_all.h"

namespace underlay {
namespace {

using Words = std::vector<std::string>;

unsigned count_failures(const Source& source, size_t threads, uint64_t unit) {
  std::atomic<unsigned> failures = 0;
  std::atomic<uint64_t> next = 0;
  const auto work = [&] {
    std::vector<std::byte> out;
    for (uint64_t at; (at = next.fetch_add(unit)) < source.size();) {
      out.resize(std::min<uint64_t>(unit, source.size() - at));
      if (!source.read_at(at, out)) ++failures;
    }
  };
  {
    std::vector<std::jthread> running;
    for (size_t i = 0; i < threads; ++i) running.emplace_back(work);
  }
  return failures;
}

void print_runs(const Source& source, uint64_t step) {
  const auto kind = [](const SourceRun& run) {
    return !run.hole ? "data" : run.reserved ? "reserved" : "hole";
  };
  for (uint64_t at = 0; at < source.size();) {
    const SourceRun run = source.run_at(at, std::min(step, source.size() - at));
    fmt::print("{} {} {}\n", at, run.length, kind(run));
    at += run.length;
  }
}

Result<void> run(const Words& words) {
  NbdLimits limits;
  limits.answer = std::chrono::milliseconds(std::stoul(words.at(2)));
  limits.connect = limits.answer;
  const auto source = TRY(open_nbd_source(words.at(1), limits));
  if (words.at(0) == "map") {
    print_runs(*source, std::stoull(words.at(3)));
    return {};
  }
  const size_t threads = std::stoul(words.at(3));
  const uint64_t unit = std::stoull(words.at(4));
  if (words.at(0) == "failures") {
    fmt::print("{}\n", count_failures(*source, threads, unit));
    return {};
  }
  const auto content = TRY(test::read_all(*source, threads, unit));
  std::fwrite(content.data(), 1, content.size(), stdout);
  return {};
}

}  // namespace
}  // namespace underlay

int main(int argc, char** argv) {
  try {
    const auto result = underlay::run(underlay::Words(argv + 1, argv + argc));
    if (!result) fmt::print(stderr, "{}\n", result.error().to_string());
    return result ? 0 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "nbd-source-dump: {}\n", error.what());
    return 2;
  }
}
