// nbd-load: random reads over one NBD connection, as fast as the server answers.
//   nbd-load SOCKET [--export NAME] [--size BYTES] [--depth N] [--seconds S] [--verify RAW]
// Keeps `depth` requests in flight (simple replies) and prints one line of JSON. With --verify,
// every reply is compared with the raw image. A server is measured, so this program must not be
// what limits: one thread, plain sockets, many requests in one send and many replies in one
// receive.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <chrono>
#include <cstring>
#include <iostream>
#include <random>
#include <stdexcept>
#include <vector>

#include "io/bytes.h"
#include "io/unique_fd.h"
#include "server/nbd_protocol.h"

namespace underlay {
namespace {

namespace po = boost::program_options;
using Clock = std::chrono::steady_clock;

constexpr size_t kReplyHeader = 16;
constexpr size_t kReceiveBuffer = 4 << 20;

struct Settings {
  std::string socket;
  std::string export_name;
  std::string verify;
  size_t size = 4096;
  unsigned depth = 32;
  double seconds = 2;
};

[[noreturn]] void die(const std::string& why) { throw std::runtime_error(why); }

class Connection {
 public:
  explicit Connection(const std::string& path)
      : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) die("the socket's path is too long");
    std::memcpy(address.sun_path, path.c_str(), path.size());
    const auto* generic = reinterpret_cast<const sockaddr*>(&address);
    if (::connect(fd_.get(), generic, sizeof(address)) != 0) die("cannot connect to " + path);
  }

  void send(ByteSpan bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) die("the server has hung up");
      bytes = bytes.subspan(static_cast<size_t>(sent));
    }
  }
  size_t receive(MutableByteSpan out) {
    const ssize_t got = ::recv(fd_.get(), out.data(), out.size(), 0);
    if (got <= 0) die("the server has hung up");
    return static_cast<size_t>(got);
  }
  void receive_exactly(MutableByteSpan out) {
    while (!out.empty()) out = out.subspan(receive(out));
  }

  // NBD_OPT_EXPORT_NAME. Returns the export's size.
  uint64_t enter(const std::string& name) {
    std::vector<std::byte> greeting(18);
    receive_exactly(greeting);
    if (load_be<uint64_t>(greeting, 0) != nbd::kMagic) die("this is no NBD server");
    std::vector<std::byte> option(20 + name.size());
    store_be<uint32_t>(option, 0, nbd::kClientFixedNewstyle | nbd::kClientNoZeroes);
    store_be<uint64_t>(option, 4, nbd::kOptionMagic);
    store_be<uint32_t>(option, 12, static_cast<uint32_t>(nbd::Option::kExportName));
    store_be<uint32_t>(option, 16, static_cast<uint32_t>(name.size()));
    std::memcpy(option.data() + 20, name.data(), name.size());
    send(option);
    std::vector<std::byte> answer(10);
    receive_exactly(answer);
    return load_be<uint64_t>(answer, 0);
  }

 private:
  UniqueFd fd_;
};

// The raw image in memory; empty when nothing is to be verified.
class Truth {
 public:
  explicit Truth(const std::string& path) {
    if (path.empty()) return;
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status;
    if (!fd.valid() || ::fstat(fd.get(), &status) != 0) die("cannot open " + path);
    const auto size = static_cast<size_t>(status.st_size);
    void* memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
    if (memory == MAP_FAILED) die("cannot map " + path);
    bytes_ = ByteSpan(static_cast<const std::byte*>(memory), size);
  }
  void check(uint64_t offset, ByteSpan got) const {
    if (bytes_.empty()) return;
    if (!range_within(offset, got.size(), bytes_.size())) die("the raw image is too short");
    if (std::memcmp(bytes_.data() + offset, got.data(), got.size()) != 0) {
      die("wrong contents at offset " + std::to_string(offset));
    }
  }

 private:
  ByteSpan bytes_;
};

class Load {
 public:
  Load(const Settings& settings)
      : settings_(settings),
        truth_(settings.verify),
        connection_(settings.socket),
        offsets_(settings.depth),
        started_(settings.depth),
        input_(kReceiveBuffer) {}

  void run() {
    const uint64_t blocks = connection_.enter(settings_.export_name) / settings_.size;
    if (blocks == 0) die("the export is smaller than one request");
    pick_ = std::uniform_int_distribution<uint64_t>(0, blocks - 1);
    begin_ = Clock::now();
    const auto end = begin_ + std::chrono::duration<double>(settings_.seconds);
    for (unsigned slot = 0; slot < settings_.depth; ++slot) ask(slot);
    while (in_flight_ > 0) {
      connection_.send(output_);
      output_.clear();
      receive_replies(Clock::now() < end);
    }
    elapsed_ = std::chrono::duration<double>(Clock::now() - begin_).count();
  }

  void print() {
    std::sort(latencies_.begin(), latencies_.end());
    const auto at = [&](double share) {
      return latencies_[static_cast<size_t>(static_cast<double>(latencies_.size() - 1) * share)];
    };
    std::cout << "{\"operations\": " << latencies_.size() << ", \"seconds\": " << elapsed_
              << ", \"iops\": " << static_cast<double>(latencies_.size()) / elapsed_
              << ", \"median_us\": " << at(0.5) << ", \"p99_us\": " << at(0.99) << "}\n";
  }

 private:
  void ask(unsigned slot) {
    offsets_[slot] = pick_(random_) * settings_.size;
    started_[slot] = Clock::now();
    const size_t at = output_.size();
    output_.resize(at + nbd::kRequestBytes);
    store_be<uint32_t>(output_, at, nbd::kRequestMagic);
    store_be<uint16_t>(output_, at + 6, static_cast<uint16_t>(nbd::Command::kRead));
    store_be<uint64_t>(output_, at + 8, slot);
    store_be<uint64_t>(output_, at + 16, offsets_[slot]);
    store_be<uint32_t>(output_, at + 24, static_cast<uint32_t>(settings_.size));
    ++in_flight_;
  }

  void receive_replies(bool go_on) {
    const size_t whole = kReplyHeader + settings_.size;
    filled_ += connection_.receive(MutableByteSpan(input_).subspan(filled_));
    size_t at = 0;
    for (; filled_ - at >= whole; at += whole) {
      const ByteSpan reply = ByteSpan(input_).subspan(at, whole);
      if (load_be<uint32_t>(reply, 0) != nbd::kSimpleReplyMagic) die("no simple reply");
      if (load_be<uint32_t>(reply, 4) != 0) die("the server answered with an error");
      const auto slot = static_cast<unsigned>(load_be<uint64_t>(reply, 8));
      if (slot >= settings_.depth) die("a reply to no request");
      truth_.check(offsets_[slot], reply.subspan(kReplyHeader));
      const auto latency = Clock::now() - started_[slot];
      latencies_.push_back(std::chrono::duration<float, std::micro>(latency).count());
      --in_flight_;
      if (go_on) ask(slot);
    }
    std::memmove(input_.data(), input_.data() + at, filled_ - at);
    filled_ -= at;
  }

  const Settings& settings_;
  Truth truth_;
  Connection connection_;
  std::mt19937_64 random_{1};
  std::uniform_int_distribution<uint64_t> pick_;
  std::vector<uint64_t> offsets_;
  std::vector<Clock::time_point> started_;
  std::vector<std::byte> output_;
  std::vector<std::byte> input_;
  size_t filled_ = 0;
  unsigned in_flight_ = 0;
  std::vector<float> latencies_;
  Clock::time_point begin_;
  double elapsed_ = 0;
};

void run(int argc, char** argv) {
  Settings settings;
  po::options_description options;
  auto add = options.add_options();
  add("socket", po::value(&settings.socket)->required());
  add("export", po::value(&settings.export_name));
  add("size", po::value(&settings.size));
  add("depth", po::value(&settings.depth));
  add("seconds", po::value(&settings.seconds));
  add("verify", po::value(&settings.verify));
  po::positional_options_description positional;
  positional.add("socket", 1);
  po::variables_map given;
  po::store(po::command_line_parser(argc, argv).options(options).positional(positional).run(),
            given);
  po::notify(given);
  if (settings.size == 0 || settings.size > kReceiveBuffer / 2 || settings.depth == 0) {
    die("--size takes 1 to 2097152, --depth at least 1");
  }
  Load load(settings);
  load.run();
  load.print();
}

}  // namespace
}  // namespace underlay

int main(int argc, char** argv) {
  try {
    underlay::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "nbd-load: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
