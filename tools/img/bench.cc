#include "tools/img/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

#include "formats/options/option_values.h"
#include "tools/img/image_argument.h"
#include "tools/img/qemu_size.h"
#include "tools/img/say.h"
#include "tools/img/timed_reads.h"

namespace underlay::img {
namespace {

// qemu-img's.
constexpr uint64_t kDefaultCount = 75000;
constexpr uint64_t kDefaultDepth = 64;
constexpr uint64_t kDefaultLength = 4096;
constexpr uint64_t kMaxNumber = std::numeric_limits<int32_t>::max();

// A thread for each request that is in flight, with a buffer of its own.
constexpr uint64_t kMaxDepth = 512;
constexpr uint64_t kBufferBudget = 1 << 30;

constexpr std::string_view kReadsOnly = "is about writing: images are only read here";

std::vector<Option> options() {
  std::vector<Option> all = image_options();
  const std::vector<Option> own = {
      {.rule = {.name = "count", .letter = 'c', .takes_value = true},
       .value_name = "N",
       .help = "send N requests (default: 75000)"},
      {.rule = {.name = "depth", .letter = 'd', .takes_value = true},
       .value_name = "N",
       .help = "N of them at a time (default: 64)"},
      {.rule = {.name = "buffer-size", .letter = 's', .takes_value = true},
       .value_name = "SIZE",
       .help = "SIZE bytes each (default: 4k)"},
      {.rule = {.name = "step-size", .letter = 'S', .takes_value = true},
       .value_name = "SIZE",
       .help = "each SIZE bytes behind the one before (default, and 0: --buffer-size)"},
      {.rule = {.name = "offset", .letter = 'o', .takes_value = true},
       .value_name = "OFFSET",
       .help = "the first of them at OFFSET (default: 0)"},
      {.rule = {.name = "random", .own = true},
       .help = "in no order, at multiples of --buffer-size behind --offset"},
      {.rule = {.name = "seed", .takes_value = true, .own = true},
       .value_name = "N",
       .help = "in another order for each N (default: 0)"},
      {.rule = {.name = "cache", .letter = 't', .takes_value = true},
       .value_name = "CACHE",
       .help = "as qemu-img's, without effect: images are read through the page cache"},
      {.rule = {.name = "aio", .letter = 'i', .takes_value = true},
       .value_name = "AIO",
       .help = "threads or io_uring: taken for qemu-img's sake"},
      {.rule = {.name = "native", .letter = 'n'}, .help = "refused, as --aio=native is"},
      {.rule = {.name = "write", .letter = 'w', .refusal = kReadsOnly},
       .help = "refused: images are only read here"},
      {.rule = {.name = "pattern", .takes_value = true, .refusal = kReadsOnly},
       .value_name = "N",
       .help = "refused: images are only read here"},
      {.rule = {.name = "flush-interval", .takes_value = true, .refusal = kReadsOnly},
       .value_name = "N",
       .help = "refused: images are only read here"},
      {.rule = {.name = "no-drain", .refusal = kReadsOnly},
       .help = "refused: images are only read here"},
      output_option(),
      quiet_option(),
  };
  all.insert(all.end(), own.begin(), own.end());
  return all;
}

Result<uint64_t> number(const Given& given, std::string_view option, uint64_t otherwise,
                        uint64_t least, uint64_t most) {
  if (!given.has(option)) return otherwise;
  const std::string text = given.last(option);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value >= least && value <= most) {
    return value;
  }
  return fail(ErrorKind::kUsage, "--{}: \"{}\" is no number from {} to {}", option,
              printable(text, 80), least, most);
}

Result<uint64_t> size(const Given& given, std::string_view option, uint64_t otherwise,
                      uint64_t least, uint64_t most) {
  if (!given.has(option)) return otherwise;
  const uint64_t value = TRY(parse_qemu_size(fmt::format("--{}", option), given.last(option)));
  if (value >= least && value <= most) return value;
  return fail(ErrorKind::kUsage, "--{}: {} is not from {} to {} bytes", option, value, least, most);
}

Result<void> check_modes(const Given& given) {
  if (given.has("native") || given.last("aio") == "native") {
    return fail(ErrorKind::kUnsupported,
                "--aio native goes past the page cache, which images are read through here; give "
                "threads or io_uring");
  }
  TRY(check_one_of("--aio", given.last_or("aio", "threads"), {"threads", "io_uring"}));
  const std::string cache = given.last_or("cache", "writeback");
  TRY(check_one_of("--cache", cache,
                   {"none", "off", "directsync", "writeback", "writethrough", "unsafe"}));
  if (cache == "none" || cache == "off" || cache == "directsync") {
    say_warnings(
        {fmt::format("--cache {}: the page cache is used all the same, and what is in it "
                     "is read faster",
                     cache)});
  }
  return {};
}

Result<TimedReads> reads_of(const Given& given) {
  TimedReads reads;
  reads.count = TRY(number(given, "count", kDefaultCount, 0, kMaxNumber));
  reads.depth = static_cast<unsigned>(TRY(number(given, "depth", kDefaultDepth, 1, kMaxDepth)));
  reads.length = TRY(size(given, "buffer-size", kDefaultLength, 1, kMaxNumber));
  reads.step = TRY(size(given, "step-size", 0, 0, kMaxNumber));
  reads.offset = TRY(size(given, "offset", 0, 0, std::numeric_limits<int64_t>::max()));
  if (reads.step == 0) reads.step = reads.length;
  if (reads.length * reads.depth > kBufferBudget) {
    return fail(ErrorKind::kLimit,
                "--buffer-size {} for each of --depth {} is more than {} bytes of memory",
                reads.length, reads.depth, kBufferBudget);
  }
  if (given.has("seed") && !given.has("random")) {
    return fail(ErrorKind::kUsage, "--seed goes with --random");
  }
  if (given.has("random")) {
    if (given.has("step-size")) {
      return fail(ErrorKind::kUsage, "--random and --step-size are mutually exclusive");
    }
    reads.seed = TRY(number(given, "seed", 0, 0, std::numeric_limits<uint64_t>::max()));
  }
  return reads;
}

struct Figures {
  double seconds = 0;
  double reads_per_second = 0;
  double bytes_per_second = 0;
};

Figures figures_of(const TimedReads& reads, const TimedReadsEnd& end) {
  Figures figures;
  figures.seconds = std::chrono::duration<double>(end.time).count();
  const double shortest = 1e-9;
  figures.reads_per_second = static_cast<double>(end.done) / std::max(figures.seconds, shortest);
  figures.bytes_per_second = figures.reads_per_second * static_cast<double>(reads.length);
  return figures;
}

double microseconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

struct Percentile {
  double percent = 0;
  const char* name = "";
};
constexpr std::array kPercentiles{Percentile{50, "50"}, Percentile{90, "90"}, Percentile{99, "99"},
                                  Percentile{99.9, "99.9"}};

// qemu-img's lines; those behind are ours.
void print_plan(const TimedReads& reads) {
  fmt::print(
      "Sending {} read requests, {} bytes each, {} in parallel (starting at offset {}, step size "
      "{})\n",
      reads.count, reads.length, reads.depth, reads.offset, reads.step);
  if (reads.seed) fmt::print("In random order, seed {}.\n", *reads.seed);
}

void print_human(const TimedReads& reads, const TimedReadsEnd& end) {
  const Figures figures = figures_of(reads, end);
  fmt::print("Run completed in {:3.3f} seconds.\n", figures.seconds);
  if (end.done == 0) return;
  fmt::print("{:.0f} reads/s, {:.1f} MiB/s\nLatency:", figures.reads_per_second,
             figures.bytes_per_second / (1 << 20));
  for (const Percentile& percentile : kPercentiles) {
    fmt::print(" {} % within {:.1f} us,", percentile.name,
               microseconds(end.latencies.percentile(percentile.percent)));
  }
  fmt::print(" all within {:.1f} us.\n", microseconds(end.latencies.slowest()));
}

void print_as_json(const std::string& path, const TimedReads& reads, const TimedReadsEnd& end) {
  const Figures figures = figures_of(reads, end);
  nlohmann::ordered_json latencies;
  for (const Percentile& percentile : kPercentiles) {
    latencies[percentile.name] = microseconds(end.latencies.percentile(percentile.percent));
  }
  latencies["max"] = microseconds(end.latencies.slowest());
  nlohmann::ordered_json document{{"version", kJsonVersion},
                                  {"filename", path},
                                  {"requests", end.done},
                                  {"buffer-size", reads.length},
                                  {"depth", reads.depth},
                                  {"offset", reads.offset},
                                  {"order", reads.seed ? "random" : "sequential"}};
  if (reads.seed) {
    document["seed"] = *reads.seed;
  } else {
    document["step-size"] = reads.step;
  }
  document["bytes-read"] = end.done * reads.length;
  document["seconds"] = figures.seconds;
  document["reads-per-second"] = figures.reads_per_second;
  document["bytes-per-second"] = figures.bytes_per_second;
  document["latency-us"] = std::move(latencies);
  print_json(document);
}

Result<int> run(const Given& given) {
  TRY(check_modes(given));
  const OutputFormat output = TRY(output_format(given));
  const bool quiet = given.has("quiet");
  const bool is_human = output == OutputFormat::kHuman && !quiet;
  const TimedReads reads = TRY(reads_of(given));
  const ImageArgument image = TRY(image_argument(given, given.operands()[0]));
  Caches caches;
  const auto disk = TRY(open_image(image, caches, quiet));
  if (is_human) print_plan(reads);
  std::fflush(stdout);
  const TimedReadsEnd end = TRY(run_timed_reads(*disk, reads));
  if (end.interrupted) {
    say_error(fmt::format("interrupted: {} of {} requests done, {} bytes read", end.done,
                          reads.count, end.done * reads.length));
    return fail_errno(EINTR, "interrupted");
  }
  if (end.failure) {
    say_error(
        fmt::format("Failed request: {}", in_file(*end.failure, image.path).value().to_string()));
    return kFailed;
  }
  TRY(disk->check_unchanged());
  if (is_human) print_human(reads, end);
  if (output == OutputFormat::kJson && !quiet) print_as_json(image.path, reads, end);
  return kDone;
}

}  // namespace

Command bench_command() {
  return {.name = "bench",
          .operands = "FILE",
          .summary = "tell how fast an image is read",
          .options = options,
          .run = run};
}

}  // namespace underlay::img
