// What a client sees when reads of its image fail for a while: a server in this process, over an
// image whose reads fail on demand.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <csignal>
#include <thread>

#include "formats/open_chain.h"
#include "io/faulty_source.h"
#include "io/memory_source.h"
#include "server/limits.h"
#include "server/predecessor.h"
#include "server/server.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_bytes.h"

namespace underlay {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kSize = 1 << 20;
constexpr uint64_t kBad = 256 << 10;  // where reads are made to fail
constexpr uint32_t kLength = 4096;

// A client in the middle of transmission, with simple replies (doc/proto.md).
class Client {
 public:
  explicit Client(UniqueFd socket) : socket_(std::move(socket)) {
    std::array<std::byte, 18> greeting{};
    receive(greeting);
    std::array<std::byte, 20> answer{};
    store_be<uint32_t>(answer, 0, 3);  // fixed newstyle, no zeroes
    store_be<uint64_t>(answer, 4, 0x49484156454f5054);
    store_be<uint32_t>(answer, 12, 1);  // NBD_OPT_EXPORT_NAME, ""
    send(answer);
    std::array<std::byte, 10> chosen{};
    receive(chosen);
  }

  void ask(uint64_t cookie, uint64_t offset) {
    std::array<std::byte, 28> request{};
    store_be<uint32_t>(request, 0, 0x25609513);
    store_be<uint64_t>(request, 8, cookie);
    store_be<uint64_t>(request, 16, offset);
    store_be<uint32_t>(request, 24, kLength);
    send(request);
  }
  struct Answer {
    uint64_t cookie = 0;
    uint32_t error = 0;
    std::vector<std::byte> data;
  };
  Answer answer() {
    std::array<std::byte, 16> header{};
    receive(header);
    Answer answer;
    answer.cookie = load_be<uint64_t>(header, 8);
    answer.error = load_be<uint32_t>(header, 4);
    if (answer.error != 0) return answer;
    answer.data.resize(kLength);
    receive(answer.data);
    return answer;
  }
  bool hears_within(milliseconds time) const {
    pollfd wait{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    return ::poll(&wait, 1, static_cast<int>(time.count())) > 0;
  }
  // Is the connection closed, without another byte?
  bool is_at_end() {
    std::byte byte;
    return ::recv(socket_.get(), &byte, 1, 0) == 0;
  }
  void say_no_more() { ::shutdown(socket_.get(), SHUT_WR); }
  void leave() { socket_.reset(); }

 private:
  void send(ByteSpan bytes) {
    REQUIRE(::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(bytes.size()));
  }
  void receive(MutableByteSpan out) {
    REQUIRE(::recv(socket_.get(), out.data(), out.size(), MSG_WAITALL) ==
            static_cast<ssize_t>(out.size()));
  }
  UniqueFd socket_;
};

// A server of one such image for one client; ends when that has left.
class Serving {
 public:
  // `handover`: the path at which it listens for a successor.
  explicit Serving(OnError policy, const std::string& handover = "") : handover_(handover) {
    contents_.resize(kSize);
    for (size_t i = 0; i < contents_.size(); ++i) contents_[i] = static_cast<std::byte>(i / 512);
    source_ = std::make_shared<FaultySource>(std::make_shared<MemorySource>(contents_, "image"));
    OpenOptions options;
    options.format = "raw";
    auto opened = open_disk(OpenedFile{source_, "/image"}, options, files_, caches_);
    REQUIRE(opened.has_value());
    export_ = std::make_shared<Export>("", "", opened->disk);
    REQUIRE(catalog_.add(export_));
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
    thread_ = std::thread([this, policy, socket = ends[0]]() mutable { run(policy, socket); });
    client.emplace(UniqueFd(ends[1]));
  }
  ~Serving() {
    client.reset();
    thread_.join();
  }

  void break_reads() { source_->fail_range(kBad, kLength); }
  void mend_reads() { source_->fail_range(0, 0); }
  FaultySource& source() { return *source_; }
  ReadFaults::Counts counts() const { return export_->faults().counts(); }
  bool is_right(const Client::Answer& answer, uint64_t offset) const {
    return answer.error == 0 && std::equal(answer.data.begin(), answer.data.end(),
                                           contents_.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  // As SIGTERM does.
  void stop() { ::pthread_kill(thread_.native_handle(), SIGTERM); }
  void wait() {
    thread_.join(), thread_ = std::thread([] {});
  }

  std::optional<Client> client;

 private:
  void run(OnError policy, int socket) {
    auto server = Server::create({.on_error = policy}, catalog_, credentials_, log_, manager_);
    if (!server) return;
    (*server)->adopt(UniqueFd(socket));
    if (!handover_.empty()) (*server)->listen_for_successor(*open_handover_socket(handover_));
    (*server)->run();
  }

  const std::string handover_;
  std::vector<std::byte> contents_;
  std::shared_ptr<FaultySource> source_;
  Confinement files_;
  Caches caches_;
  Log log_{"test", false};
  ServiceManager manager_;
  const CurrentCredentials credentials_;
  ExportCatalog catalog_{{}, files_, caches_, log_};
  std::shared_ptr<Export> export_;
  std::thread thread_;
};

// Takes everything from the server that listens for it, and serves until its last client leaves.
class Successor {
 public:
  explicit Successor(const std::string& handover) {
    std::vector<std::byte> contents(kSize, std::byte{7});
    OpenOptions options;
    options.format = "raw";
    auto source = std::make_shared<MemorySource>(std::move(contents), "image");
    auto opened = open_disk(OpenedFile{source, "/image"}, options, files_, caches_);
    REQUIRE(opened.has_value());
    REQUIRE(catalog_.add(std::make_shared<Export>("", "", opened->disk)));
    thread_ = std::thread([this, handover] { result = run(handover); });
  }
  ~Successor() { wait(); }
  void wait() {
    if (thread_.joinable()) thread_.join();
  }

  Result<void> result;  // after wait()

 private:
  Result<void> run(const std::string& handover) {
    auto server = TRY(Server::create({}, catalog_, credentials_, log_, manager_));
    Predecessor predecessor = TRY(Predecessor::connect(handover, server->signal_fd()));
    TRY(predecessor.open_exports(catalog_));
    TRY(predecessor.receive(catalog_));
    server->inherit(TRY(predecessor.take({})));
    server->run();
    return {};
  }

  Confinement files_;
  Caches caches_;
  Log log_{"successor", false};
  ServiceManager manager_;
  const CurrentCredentials credentials_;
  ExportCatalog catalog_{{}, files_, caches_, log_};
  std::thread thread_;
};

}  // namespace

TEST_CASE("faults: a read that fails a few times is tried again, and nobody hears of it") {
  Serving serving(OnError::kEio);
  serving.break_reads();
  serving.client->ask(1, kBad);
  CHECK_FALSE(serving.client->hears_within(limits::kRetryFirst * 2));
  serving.mend_reads();
  const auto answer = serving.client->answer();
  CHECK(answer.cookie == 1);
  CHECK(serving.is_right(answer, kBad));
  CHECK(serving.counts().retried >= 1);
  CHECK(serving.counts().failed == 0);
  CHECK(serving.counts().held == 0);
}

TEST_CASE("faults: eio answers with an error after its tries; other reads go on meanwhile") {
  Serving serving(OnError::kEio);
  serving.break_reads();
  const auto start = Clock::now();
  serving.client->ask(1, kBad);
  serving.client->ask(2, 0);
  const auto other = serving.client->answer();
  CHECK(other.cookie == 2);
  CHECK(serving.is_right(other, 0));
  const auto answer = serving.client->answer();
  CHECK(answer.cookie == 1);
  CHECK(answer.error == 5);  // NBD_EIO
  CHECK(Clock::now() - start > limits::kRetryLongest);
  CHECK(serving.counts().retried == limits::kRetries);
  CHECK(serving.counts().failed == 1);
  CHECK(serving.counts().held == 0);
}

TEST_CASE("faults: hold waits for as long as it takes") {
  Serving serving(OnError::kHold);
  serving.break_reads();
  serving.client->ask(1, kBad);
  CHECK_FALSE(serving.client->hears_within(milliseconds(2'500)));
  CHECK(serving.counts().retried > limits::kRetries);
  CHECK(serving.counts().held == 1);
  serving.mend_reads();
  CHECK(serving.is_right(serving.client->answer(), kBad));
  CHECK(serving.counts().failed == 0);
  CHECK(serving.counts().held == 0);
}

TEST_CASE("faults: who leaves while its read is held holds up nobody") {
  Serving serving(OnError::kHold);
  serving.break_reads();
  serving.client->ask(1, kBad);
  CHECK_FALSE(serving.client->hears_within(milliseconds(200)));
  serving.client->leave();
  serving.wait();  // the server ends with its last client
  CHECK(serving.counts().held == 0);
}

TEST_CASE("faults: who leaves with more held reads than are received is noticed") {
  Serving serving(OnError::kHold);
  serving.break_reads();
  for (uint64_t i = 0; i < limits::kOperations + 10; ++i) serving.client->ask(i, kBad);
  CHECK_FALSE(serving.client->hears_within(milliseconds(200)));
  CHECK(serving.counts().held == limits::kOperations);
  serving.client->leave();
  serving.wait();
  CHECK(serving.counts().held == 0);
}

TEST_CASE("faults: who says no more gets an error in the end, also under hold") {
  Serving serving(OnError::kHold);
  serving.break_reads();
  serving.client->ask(1, kBad);
  serving.client->say_no_more();
  CHECK(serving.client->answer().error == 5);
  CHECK(serving.client->is_at_end());
}

TEST_CASE("faults: a server that ends does not answer what it holds") {
  Serving serving(OnError::kHold);
  serving.break_reads();
  serving.client->ask(1, kBad);
  CHECK_FALSE(serving.client->hears_within(milliseconds(200)));
  serving.stop();
  CHECK(serving.client->is_at_end());
  serving.wait();
  CHECK(serving.counts().held == 0);
  CHECK(serving.counts().failed == 0);
}

// Its contents differ, so that it shows who answers.
TEST_CASE("faults: a successor answers what its predecessor holds") {
  const TempFolder folder;
  Serving serving(OnError::kHold, folder.path("handover"));
  serving.break_reads();
  for (uint64_t cookie = 1; cookie <= 3; ++cookie) serving.client->ask(cookie, kBad);
  CHECK_FALSE(serving.client->hears_within(milliseconds(200)));
  CHECK(serving.counts().held == 3);
  Successor successor(folder.path("handover"));
  for (uint64_t cookie = 1; cookie <= 3; ++cookie) {
    const auto answer = serving.client->answer();
    CHECK(answer.cookie == cookie);
    CHECK(answer.error == 0);
    CHECK(answer.data == std::vector<std::byte>(kLength, std::byte{7}));
  }
  serving.client->ask(4, 0);
  CHECK(serving.client->answer().cookie == 4);
  serving.client->leave();
  successor.wait();
  CHECK_MESSAGE(successor.result, successor.result.error().to_string());
  serving.wait();
  CHECK(serving.counts().held == 0);
}

}  // namespace underlay
