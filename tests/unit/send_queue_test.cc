#include "server/send_queue.h"

#include <doctest/doctest.h>

#include <cstring>
#include <random>
#include <string>

#include "server/limits.h"

namespace underlay {
namespace {

struct Queue {
  explicit Queue(uint64_t limit = 1ull << 30) : budget(limit, 0), pool(budget), queue(pool) {}

  bool put(std::string_view reply) {
    const MutableByteSpan room = queue.reserve(reply.size());
    if (room.empty()) return false;
    std::memcpy(room.data(), reply.data(), reply.size());
    queue.commit(reply.size());
    return true;
  }
  // What prepare() offers, `count` bytes of it marked as sent.
  std::string send(size_t count = SIZE_MAX) {
    msghdr message;
    queue.prepare(message);
    return finish(message, count);
  }
  std::string finish(const msghdr& message, size_t count = SIZE_MAX) {
    std::string bytes;
    for (size_t i = 0; i < message.msg_iovlen; ++i) {
      bytes.append(static_cast<const char*>(message.msg_iov[i].iov_base),
                   message.msg_iov[i].iov_len);
    }
    bytes.resize(std::min(bytes.size(), count));
    queue.sent(bytes.size());
    return bytes;
  }

  ByteBudget budget;
  BufferPool pool;
  SendQueue queue;
};

TEST_CASE("send queue: replies go out in the order they were committed") {
  Queue q;
  CHECK(q.put("one "));
  CHECK(q.put("two "));
  CHECK(q.queue.unsent() == 8);
  CHECK(q.send() == "one two ");
  CHECK(q.queue.unsent() == 0);
  CHECK(q.send().empty());
}

TEST_CASE("send queue: only what was committed of a reservation is sent") {
  Queue q;
  const MutableByteSpan room = q.queue.reserve(1000);
  CHECK(room.size() == 1000);
  std::memcpy(room.data(), "headxxxx", 8);
  q.queue.commit(4);
  (void)q.queue.reserve(1000);  // and then thought better of it
  CHECK(q.put("tail"));
  CHECK(q.send() == "headtail");
}

TEST_CASE("send queue: small replies share a buffer") {
  Queue q;
  for (int i = 0; i < 100; ++i) CHECK(q.put("0123456789abcdef"));
  CHECK(q.budget.used() == 4096);
}

TEST_CASE("send queue: what is being sent stays as it is while replies are added") {
  Queue q;
  CHECK(q.put("first"));
  msghdr message;
  q.queue.prepare(message);
  CHECK(q.put("second"));
  CHECK(q.finish(message) == "first");
  CHECK(q.send() == "second");
}

TEST_CASE("send queue: what was sent in part goes on at the right byte") {
  Queue q;
  const std::string payload(5000, 'p');
  CHECK(q.put("header"));
  q.queue.append(as_bytes(payload));
  CHECK(q.put("next"));
  std::string all;
  for (const size_t part : {1u, 4u, 1u, 4999u, 2u, 100u}) all += q.send(part);
  CHECK(all == "header" + payload + "next");
  CHECK(q.queue.unsent() == 0);
}

TEST_CASE("send queue: an owner is freed when all before it was sent, and not sooner") {
  Queue q;
  Buffer data = *q.pool.allocate(8192, ByteBudget::Use::kBulk);
  std::memset(data.data(), 'd', 8192);
  q.queue.append(ByteSpan(data.data(), 8192));
  q.queue.append_owner(std::move(data));
  CHECK(q.budget.used() == 8192);
  CHECK(q.send(8191).size() == 8191);
  CHECK(q.budget.used() == 8192);
  CHECK(q.send() == "d");
  CHECK(q.budget.used() == 0);
}

TEST_CASE("send queue: buffers are given back once they were sent") {
  Queue q;
  for (int round = 0; round < 1000; ++round) {
    CHECK(q.put("reply"));
    CHECK(q.send() == "reply");
    REQUIRE(q.budget.used() == 0);
  }
}

TEST_CASE("send queue: an empty one gives back what was reserved, and goes on") {
  Queue q;
  CHECK(q.put("one"));
  CHECK(q.send() == "one");
  (void)q.queue.reserve(1000);
  REQUIRE(q.budget.used() > 0);
  q.queue.release_memory();
  CHECK(q.budget.used() == 0);
  CHECK(q.put("two"));
  CHECK(q.send() == "two");
}

TEST_CASE("send queue: without memory nothing is reserved, and what was queued still goes out") {
  Queue q(4096);
  CHECK(q.put(std::string(2000, 'a')));
  CHECK(!q.put(std::string(3000, 'b')));
  CHECK(q.put(std::string(2000, 'c')));  // there is room in the buffer
  CHECK(q.send() == std::string(2000, 'a') + std::string(2000, 'c'));
  CHECK(q.put("again"));
}

TEST_CASE("send queue: one send has bounded bytes and pieces, and all go out in the end") {
  Queue q;
  const std::string large(3 * limits::kSendBytes, 'l');
  q.queue.append(as_bytes(large));
  CHECK(q.send().size() == limits::kSendBytes);
  std::string pieces;
  for (char c = 0; c < 127; ++c) pieces += c;
  for (const char& c : pieces) q.queue.append(as_bytes(std::string_view(&c, 1)));
  std::string rest;
  while (q.queue.unsent() > 0) rest += q.send();
  CHECK(rest == large.substr(limits::kSendBytes) + pieces);
}

TEST_CASE("send queue: any mix of replies and partial sends keeps the stream whole") {
  std::mt19937 random(1);
  Queue q;
  const std::string payload(20'000, 'x');
  std::string wanted;
  std::string got;
  for (int step = 0; step < 5000; ++step) {
    const size_t length = 1 + random() % 3000;
    const auto kind = random() % 4;
    if (kind == 0) {
      q.queue.append(as_bytes(payload).first(length));
      q.queue.append_owner(*q.pool.allocate(1, ByteBudget::Use::kBulk));
      wanted.append(payload, 0, length);
    } else if (kind == 1) {
      const std::string reply(length, static_cast<char>('a' + step % 26));
      CHECK(q.put(reply));
      wanted += reply;
    } else {
      msghdr message;
      q.queue.prepare(message);
      if (kind == 3) {
        CHECK(q.put("late"));
        wanted += "late";
      }
      got += q.finish(message, random() % 8000);
    }
  }
  while (q.queue.unsent() > 0) got += q.send();
  CHECK((got == wanted));
  CHECK(q.send().empty());
  CHECK(q.budget.used() == 0);
}

TEST_CASE("send queue: what lies in files goes out between what lies in memory, in order") {
  Queue q;
  CHECK(q.put("head"));
  q.queue.append_file(7, 1000, 300);
  q.queue.append_file(8, 5, 1);
  CHECK(q.put("tail"));
  CHECK(q.queue.unsent() == 309);

  CHECK_FALSE(q.queue.file());
  msghdr message;
  CHECK(q.queue.prepare(message));  // a file follows
  CHECK(q.finish(message, 2) == "he");
  CHECK(q.send() == "ad");

  auto file = q.queue.file();
  REQUIRE(file);
  CHECK(file->fd == 7);
  CHECK(file->offset == 1000);
  CHECK(file->size == 300);
  q.queue.sent(100);
  file = q.queue.file();
  REQUIRE(file);
  CHECK(file->fd == 7);
  CHECK(file->offset == 1100);
  CHECK(file->size == 200);
  q.queue.sent(200);
  file = q.queue.file();
  REQUIRE(file);
  CHECK(file->fd == 8);
  q.queue.sent(1);

  CHECK_FALSE(q.queue.file());
  CHECK_FALSE(q.queue.prepare(message));
  CHECK(q.finish(message) == "tail");
  CHECK(q.queue.unsent() == 0);
}

TEST_CASE("send queue: a block is held until its bytes have been sent, and no longer") {
  BlockMemory memory(0);
  Queue q;
  std::shared_ptr<Block> block = memory.allocate(100);
  std::memset(block->writable().data(), 'b', 100);
  const std::weak_ptr<const Block> watched = block;
  const ByteSpan bytes(block->data() + 10, 50);
  CHECK(q.put("head"));
  q.queue.append_block(std::move(block), bytes);
  CHECK(q.put("tail"));
  CHECK(q.queue.unsent() == 58);
  CHECK(q.send(20) == "head" + std::string(16, 'b'));
  CHECK_FALSE(watched.expired());
  CHECK(q.send(34) == std::string(34, 'b'));
  CHECK(watched.expired());
  CHECK(q.send() == "tail");
}

TEST_CASE("send queue: zeros are as many as were asked for, and take no reply memory") {
  constexpr size_t kMany = 1'000'001;
  Queue q;
  q.queue.append_zeros(kMany);
  CHECK(q.queue.unsent() == kMany);
  CHECK(q.budget.used() == 0);
  CHECK(q.put("end"));
  std::string all;
  while (q.queue.unsent() > 0) all += q.send();
  CHECK(all == std::string(kMany, '\0') + "end");
}

}  // namespace
}  // namespace underlay
