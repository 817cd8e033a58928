// image-judge: changes an image in many ways, one after the other, and tells what the readers and
// the inspector make of each. Reads requests from standard input, one JSON object a line:
//   {"image": PATH, "opened": PATH, "format": F, "backing_format": F, "parents": ["CHILD=PATH",
//   ...],
//    "truth": PATH or "", "memory": BYTES, "seconds": S,
//    "commands": [["check", "-f", "qcow2"], ...],
//    "cases": [{"name": NAME, "patches": [[OFFSET, "HEX"], ...], "length": BYTES or -1,
//                "crc32c": [[OFFSET, BYTES], ...]}, ...]}
// image: what is changed. opened: what is opened, the same or a file that names it. crc32c:
// structures whose checksum, at 4, is then put right; and prints a line for each case (judge_case()
// below; {"name", "died"} when it killed the process that looked at it), in their order. The image
// is as before at the end. `commands` are underlay-img's, without the image. Every case may take
// `seconds` and `memory` bytes of address space (0: any).
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "formats/crc32c.h"
#include "formats/open_chain.h"
#include "formats/options/chain_options.h"
#include "io/unique_fd.h"
#include "tests/support/judged_disk.h"
#include "tools/img/command_line.h"
#include "tools/img/say.h"

namespace underlay {
namespace {

using Json = nlohmann::json;
using Bytes = std::vector<std::byte>;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Bytes read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error("cannot read " + path);
  Bytes bytes(static_cast<size_t>(file.tellg()));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

// KiB of this process, from /proc/self/status.
long memory_field(std::string_view field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field)) return std::stol(line.substr(field.size()));
  }
  return 0;
}

// Measures the most physical memory that was taken on top of what was there.
class MemoryPeak {
 public:
  MemoryPeak() {
    std::ofstream("/proc/self/clear_refs") << "5";
    before_ = memory_field("VmHWM:");
  }
  long kib() const { return memory_field("VmHWM:") - before_; }

 private:
  long before_;
};

// The image's file, as it is and changed.
class ChangedImage {
 public:
  explicit ChangedImage(const std::string& path)
      : fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC)), original_(read_file(path)) {
    if (!fd_.valid()) throw std::runtime_error("cannot write " + path);
  }

  void change(const Json& patches, const Json& sealed, int64_t length) {
    // Shorter and shorter, the file need not be whole in between.
    const bool only_cut = patches.empty() && changed_.empty() && length >= 0;
    if (!only_cut || cut_ < static_cast<uint64_t>(length)) restore();
    for (const Json& patch : patches) {
      const uint64_t offset = patch[0].get<uint64_t>();
      const std::string hex = patch[1].get<std::string>();
      Bytes bytes;
      for (size_t i = 0; i + 1 < hex.size(); i += 2) {
        bytes.push_back(static_cast<std::byte>(std::stoul(hex.substr(i, 2), nullptr, 16)));
      }
      write(offset, bytes);
      changed_.emplace_back(offset, bytes.size());
    }
    for (const Json& part : sealed) seal(part[0].get<uint64_t>(), part[1].get<size_t>());
    if (length >= 0) {
      cut_ = std::min<uint64_t>(static_cast<uint64_t>(length), original_.size());
      set_size(static_cast<uint64_t>(length));
    }
  }

  void restore() {
    for (const auto& [offset, length] : changed_) write_original(offset, offset + length);
    changed_.clear();
    if (cut_ < original_.size()) write_original(cut_, original_.size());
    cut_ = original_.size();
    set_size(original_.size());
  }

  // After another process changed it.
  void restore_all() {
    write_original(0, original_.size());
    set_size(original_.size());
  }

 private:
  void write(uint64_t offset, ByteSpan bytes) {
    if (::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)) !=
        static_cast<ssize_t>(bytes.size())) {
      throw std::runtime_error("cannot change the image");
    }
  }
  void seal(uint64_t offset, size_t length) {
    Bytes bytes(length);
    if (::pread(fd_.get(), bytes.data(), length, static_cast<off_t>(offset)) !=
        static_cast<ssize_t>(length)) {
      throw std::runtime_error("cannot read the image");
    }
    const uint32_t sum = crc32c_around(bytes, 4);
    Bytes raw(4);
    for (size_t i = 0; i < 4; ++i) raw[i] = static_cast<std::byte>(sum >> (8 * i));
    write(offset + 4, raw);
    changed_.emplace_back(offset + 4, 4);
  }
  void write_original(uint64_t from, uint64_t end) {
    end = std::min<uint64_t>(end, original_.size());
    if (from < end) write(from, ByteSpan(original_).subspan(from, end - from));
  }
  void set_size(uint64_t size) {
    if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) {
      throw std::runtime_error("cannot cut the image");
    }
  }

  UniqueFd fd_;
  Bytes original_;
  std::vector<std::pair<uint64_t, uint64_t>> changed_;
  uint64_t cut_ = original_.size();
};

// Standard output or error, into memory.
class Captured {
 public:
  explicit Captured(int stream)
      : stream_(stream), saved_(::dup(stream)), memory_(::memfd_create("captured", MFD_CLOEXEC)) {
    ::dup2(memory_.get(), stream_);
  }
  std::string end() {
    std::fflush(stdout);
    ::dup2(saved_.get(), stream_);
    std::string text(static_cast<size_t>(::lseek(memory_.get(), 0, SEEK_END)), '\0');
    (void)!::pread(memory_.get(), text.data(), text.size(), 0);
    return text;
  }

 private:
  int stream_;
  UniqueFd saved_;
  UniqueFd memory_;
};

// What underlay-img's main() does.
int run_img(const std::vector<std::string>& words) {
  const auto line = img::parse_command_line(words);
  if (!line || line->command == nullptr) throw std::runtime_error("no such use of underlay-img");
  const auto status = line->command->run(line->given);
  if (!status) img::say_error(status.error().to_string());
  return status ? *status : line->command->error_status;
}

Json judge_command(std::vector<std::string> words, const std::string& image) {
  words.push_back(image);
  const MemoryPeak peak;
  const auto start = Clock::now();
  std::fflush(stdout);
  Captured output(STDOUT_FILENO);
  Captured errors(STDERR_FILENO);
  int status = -1;
  std::string thrown;
  try {
    status = run_img(words);
  } catch (const std::exception& error) {
    thrown = error.what();
  }
  const std::string said = errors.end();
  const std::string printed = output.end();
  return {{"status", status},  {"thrown", thrown},  {"stderr", said},
          {"stdout", printed}, {"kib", peak.kib()}, {"seconds", seconds_since(start)}};
}

OpenOptions options_of(const Json& request) {
  OpenOptions options;
  options.format = request.value("format", "");
  options.backing_format = request.value("backing_format", "");
  for (const std::string parent : request.value("parents", Json::array())) {
    options.parents.push_back(parse_parent_path("--parent", parent).value());
  }
  return options;
}

// {"refused": message} or what judge_disk() says, with "warnings".
Json judge_image(const Json& request, ByteSpan truth) {
  const Confinement confinement;
  Caches caches;
  const auto opened =
      open_disk(request["opened"].get<std::string>(), options_of(request), confinement, caches);
  if (!opened) return {{"refused", opened.error().to_string()}};
  Json judged = judge_disk(*opened->disk, truth);
  judged["warnings"] = opened->warnings;
  return judged;
}

Json judge_case(const Json& request, const Json& one, ByteSpan truth) {
  const MemoryPeak peak;
  const auto start = Clock::now();
  Json judged;
  try {
    judged = judge_image(request, truth);
  } catch (const std::exception& error) {
    judged["thrown"] = error.what();
  }
  judged["name"] = one["name"];
  judged["kib"] = peak.kib();
  judged["seconds"] = seconds_since(start);
  Json commands = Json::array();
  for (const Json& words : request["commands"]) {
    commands.push_back(judge_command(words, request["opened"].get<std::string>()));
  }
  judged["commands"] = std::move(commands);
  return judged;
}

// In a process of its own: the cases from `*next` on; `*next` is the one that is looked at.
[[noreturn]] void judge_cases(const Json& request, ByteSpan truth, size_t* next) {
  if (const uint64_t memory = request.value("memory", uint64_t{0}); memory != 0) {
    const struct rlimit limit { memory, memory };
    ::setrlimit(RLIMIT_AS, &limit);
  }
  ChangedImage image(request["image"].get<std::string>());
  const Json& cases = request["cases"];
  for (; *next < cases.size(); ++*next) {
    const Json& one = cases[*next];
    ::alarm(request.value("seconds", 10u));
    image.change(one.value("patches", Json::array()), one.value("crc32c", Json::array()),
                 one.value("length", int64_t{-1}));
    const std::string line =
        judge_case(request, one, truth).dump(-1, ' ', false, Json::error_handler_t::replace);
    ::alarm(0);  // whoever reads may take his time
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  }
  image.restore();
  ::_exit(0);
}

void answer(const Json& request) {
  const std::string truth_path = request.value("truth", "");
  const Bytes truth = truth_path.empty() ? Bytes{} : read_file(truth_path);
  ChangedImage image(request["image"].get<std::string>());
  auto* const next = static_cast<size_t*>(
      ::mmap(nullptr, sizeof(size_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  for (*next = 0; *next < request["cases"].size(); ++*next) {
    const pid_t child = ::fork();
    if (child == 0) judge_cases(request, truth, next);
    int status = 0;
    ::waitpid(child, &status, 0);
    if (*next >= request["cases"].size()) break;
    const std::string how = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                                : fmt::format("exit {}", WEXITSTATUS(status));
    std::cout << Json{{"name", request["cases"][*next]["name"]}, {"died", how}}.dump() << std::endl;
    image.restore_all();
  }
  ::munmap(next, sizeof(size_t));
}

}  // namespace
}  // namespace underlay

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    underlay::answer(nlohmann::json::parse(line));
  }
  return 0;
}
