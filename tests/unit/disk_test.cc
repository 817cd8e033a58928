#include "formats/disk.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <functional>

#include "tests/support/fake_disk.h"

namespace underlay {
namespace {

using Bytes = std::vector<std::byte>;
using Kind = Extent::Kind;

// 1024 bytes of data, then a hole of the file system; counts who asks for it.
class HalfHole final : public Source {
 public:
  const std::string& name() const override { return bytes_.name(); }
  uint64_t size() const override { return bytes_.size(); }
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override {
    return bytes_.read_at(offset, out);
  }
  SourceRun run_at(uint64_t offset, uint64_t length) const override {
    ++asked;
    if (offset >= 1024) return {.hole = true, .length = length};
    return {.hole = false, .length = std::min(length, 1024 - offset)};
  }

  mutable int asked = 0;

 private:
  MemorySource bytes_{Bytes(4096)};
};

std::string repeat(uint64_t count, char c) { return std::string(count, c); }

TEST_CASE("a read goes over data, zeros and parents in one") {
  const Chain chain({{{Kind::kData, 512, 'a'}, {Kind::kZero, 512, 'x'}, {Kind::kParent, 512, 'x'}},
                     {{Kind::kData, 1536, 'b'}}});
  CHECK(chain.text(0, 1536) == repeat(512, 'a') + repeat(512, '0') + repeat(512, 'b'));
  CHECK(chain.text(511, 514) == "a" + repeat(512, '0') + "b");
  CHECK(chain.text(700, 0).empty());
}

TEST_CASE("zeros of a child hide the parent's data") {
  const Chain chain({{{Kind::kZero, 512}}, {{Kind::kData, 512, 'b'}}});
  CHECK(chain.text(0, 512) == repeat(512, '0'));
}

TEST_CASE("without a parent kParent is zeros, at depth 0") {
  const Chain chain({{{Kind::kParent, 512, 'x'}}});
  CHECK(chain.text(0, 512) == repeat(512, '0'));
  const Extent extent = *chain.disk->map(0, 512, MapFor::kRead);
  CHECK(extent.kind == Kind::kZero);
  CHECK(extent.depth == 0);
}

TEST_CASE("a shorter parent is zeros behind its end, to the byte") {
  const Chain chain({{{Kind::kParent, 2048, 'x'}}, {{Kind::kData, 700, 'b'}}});
  CHECK(chain.text(0, 2048) == repeat(700, 'b') + repeat(1348, '0'));
  CHECK(chain.disk->map(0, 2048, MapFor::kRead)->length == 700);
  CHECK(chain.disk->map(700, 1000, MapFor::kRead)->kind == Kind::kZero);
}

TEST_CASE("a shorter parent hides what its own longer parent holds behind its end") {
  const Chain chain(
      {{{Kind::kParent, 2048, 'x'}}, {{Kind::kParent, 512, 'x'}}, {{Kind::kData, 2048, 'c'}}});
  CHECK(chain.text(0, 2048) == repeat(512, 'c') + repeat(1536, '0'));
}

TEST_CASE("a longer parent is cut to the child's size") {
  const Chain chain({{{Kind::kParent, 512, 'x'}}, {{Kind::kData, 4096, 'b'}}});
  CHECK(chain.disk->size() == 512);
  CHECK(chain.text(0, 512) == repeat(512, 'b'));
}

TEST_CASE("a size that is no multiple of a sector is filled up with zeros, never with the parent") {
  const Chain chain({{{Kind::kData, 700, 'a'}}, {{Kind::kData, 4096, 'b'}}});
  CHECK(chain.disk->unpadded_size() == 700);
  CHECK(chain.disk->size() == 1024);
  CHECK(chain.text(0, 1024) == repeat(700, 'a') + repeat(324, '0'));
}

TEST_CASE("depth counts the images from the top") {
  const Chain chain({{{Kind::kData, 512, 'a'}, {Kind::kParent, 1024}},
                     {{Kind::kParent, 512}, {Kind::kZero, 512}, {Kind::kParent, 512}},
                     {{Kind::kParent, 1024}, {Kind::kData, 512, 'c'}}});
  CHECK(chain.disk->map(0, 1, MapFor::kRead)->depth == 1);
  CHECK(chain.disk->map(512, 1, MapFor::kRead)->depth == 2);
  CHECK(chain.disk->map(1024, 1, MapFor::kRead)->depth == 3);
}

TEST_CASE("an extent never reaches over the end of a layer's extent") {
  const Chain chain({{{Kind::kParent, 512}, {Kind::kData, 512, 'a'}}, {{Kind::kData, 1024, 'b'}}});
  const Extent extent = *chain.disk->map(0, 1024, MapFor::kRead);
  CHECK(extent.kind == Kind::kData);
  CHECK(extent.length == 512);
}

TEST_CASE("a failed read of data fails the whole read, in every layer") {
  for (const size_t layer : {0u, 1u}) {
    const Chain chain(
        {{{Kind::kData, 512, 'a'}, {Kind::kParent, 512}}, {{Kind::kData, 1024, 'b'}}});
    chain.readers[layer]->faults().fail_read(0);
    CHECK(chain.text(0, 1024) == "error");
    CHECK(chain.text(0, 1024) == repeat(512, 'a') + repeat(512, 'b'));  // and is not remembered
  }
}

TEST_CASE("a damaged table fails the read instead of falling through to the parent") {
  for (const size_t layer : {0u, 1u}) {
    const Chain chain({{{Kind::kParent, 512}}, {{Kind::kParent, 512}}, {{Kind::kData, 512, 'c'}}});
    chain.readers[layer]->map_fails_from = 0;
    CHECK(chain.text(0, 512) == "error");
    CHECK(!chain.disk->map(0, 512, MapFor::kStatus));
    CHECK(!chain.disk->prefetch(0, 512));
  }
}

TEST_CASE("block status tells holes of the file system, in every layer, and reads do not look") {
  for (const size_t layer : {0u, 1u}) {
    std::vector<std::vector<Piece>> layers(layer, {{Kind::kParent, 4096}});
    layers.push_back({{Kind::kData, 4096, 'a'}});
    const Chain chain(std::move(layers));
    const HalfHole file;
    chain.readers[layer]->other_source = &file;
    for (const MapFor purpose : {MapFor::kReadNow, MapFor::kRead}) {
      CHECK(chain.disk->map(512, 3584, purpose)->length == 3584);
      CHECK(chain.disk->map(2048, 512, purpose)->kind == Kind::kData);
    }
    CHECK(file.asked == 0);
    const Extent data = *chain.disk->map(512, 3584, MapFor::kStatus);
    CHECK(data.kind == Kind::kData);
    CHECK(data.length == 512);
    CHECK(data.source_offset == 512);
    const Extent hole = *chain.disk->map(1024, 2048, MapFor::kStatus);
    CHECK(hole.kind == Kind::kZero);
    CHECK_FALSE(hole.reserved);
    CHECK(hole.depth == layer + 1);
    CHECK(hole.length == 2048);
  }
}

TEST_CASE("block status asks no file about what the format says itself") {
  const Chain chain({{{Kind::kZero, 2048}, {Kind::kCompressed, 2048, 'z'}}});
  const HalfHole file;
  chain.readers[0]->other_source = &file;
  CHECK(chain.disk->map(1024, 1024, MapFor::kStatus)->reserved);
  CHECK(chain.disk->map(2048, 2048, MapFor::kStatus)->kind == Kind::kCompressed);
  CHECK(file.asked == 0);
}

TEST_CASE("a fault at any read of a chain is an error, never other bytes") {
  const std::vector<std::vector<Piece>> layers = {
      {{Kind::kData, 512, 'a'}, {Kind::kCompressed, 1024, 'z'}, {Kind::kParent, 1024}},
      {{Kind::kParent, 1536}, {Kind::kData, 512, 'b'}, {Kind::kCompressed, 512, 'y'}}};
  const std::string good = Chain(layers).text(0, 2560);
  REQUIRE(good == repeat(512, 'a') + repeat(1024, 'z') + repeat(512, 'b') + repeat(512, 'y'));
  for (const size_t layer : {0u, 1u}) {
    for (int64_t nth = 0; nth < 4; ++nth) {
      const Chain chain(layers);
      chain.readers[layer]->faults().fail_read(nth);
      const std::string text = chain.text(0, 2560);
      CHECK((text == (nth < 2 ? "error" : good)));
      chain.readers[layer]->faults().fail_read(-1);
      CHECK((chain.text(0, 2560) == good));
    }
  }
}

TEST_CASE("the images of a chain are asked once for what lies in one run") {
  const Chain chain({{{Kind::kParent, 65536}, {Kind::kData, 65536, 'a'}, {Kind::kParent, 131072}},
                     {{Kind::kParent, 262144}},
                     {{Kind::kData, 262144, 'c'}}});
  const auto asked = [&] {
    return chain.readers[0]->maps + chain.readers[1]->maps + chain.readers[2]->maps;
  };
  CHECK(chain.text(4096, 2) == "cc");
  CHECK(chain.text(65536 + 512, 2) == "aa");
  CHECK(chain.text(140000, 2) == "cc");
  const int before = asked();
  CHECK(chain.text(0, 2) == "cc");
  CHECK(chain.text(65534, 2) == "cc");
  CHECK(chain.text(131070, 2) == "aa");
  CHECK(chain.text(131072, 2) == "cc");
  CHECK(asked() == before);
  CHECK(chain.text(65535, 2) == "ca");
}

TEST_CASE("what is wrong elsewhere in a unit does not fail a read, and no failure is remembered") {
  const Chain chain(
      {{{Kind::kParent, 65536}, {Kind::kData, 65536, 'a'}}, {{Kind::kData, 131072, 'b'}}});
  chain.readers[1]->map_fails_from = 0;
  CHECK(chain.text(70000, 2) == "aa");
  CHECK(chain.text(0, 2) == "error");
  chain.readers[1]->map_fails_from = UINT64_MAX;
  CHECK(chain.text(0, 2) == "bb");
}

TEST_CASE("remembered runs are those of the disk, which may begin within its image") {
  const Chain chain(
      {{{Kind::kParent, 66048}, {Kind::kData, 65536, 'a'}}, {{Kind::kData, 131584, 'b'}}}, 65536);
  for (int time = 0; time < 2; ++time) {
    CHECK(chain.text(0, 4) == "bbbb");
    CHECK(chain.text(510, 4) == "bbaa");
    CHECK(chain.text(512, 4) == "aaaa");
  }
}

TEST_CASE("a compressed cluster is unpacked once and cut to what is asked for") {
  const Chain chain({{{Kind::kData, 512, 'a'}, {Kind::kCompressed, 4096, 'z'}}});
  CHECK(chain.text(511, 3) == "azz");
  CHECK(chain.text(4000, 608) == repeat(608, 'z'));
  CHECK(chain.readers[0]->loads == 1);
}

TEST_CASE("read_from_memory stops at the first cluster that is not unpacked yet") {
  const Chain chain({{{Kind::kZero, 512}, {Kind::kCompressed, 4096, 'z'}}});
  Bytes out(1024);
  CHECK(chain.disk->read_from_memory(0, out) == 512);
  CHECK(chain.readers[0]->loads == 0);
  CHECK(chain.text(512, 1) == "z");
  CHECK(chain.disk->read_from_memory(0, out) == out.size());
  CHECK(as_text(out) == repeat(512, '\0') + repeat(512, 'z'));
}

TEST_CASE("zeros of a read in parts count from the start of the whole") {
  ZeroRuns zeros;
  const Chain chain({{{Kind::kZero, 16384}}});
  Bytes out(8192);
  zeros.begin_part(4096);
  CHECK(chain.disk->read_from_memory(4096, out, &zeros) == out.size());
  zeros.begin_part(12288);
  REQUIRE(chain.disk->read(12288, MutableByteSpan(out).first(4096), &zeros));
  REQUIRE(zeros.end() - zeros.begin() == 1);
  CHECK(zeros.begin()->offset == 4096);
  CHECK(zeros.begin()->length == 12288);
}

TEST_CASE("a disk may begin within its image, and ends with a whole sector") {
  const Chain chain({{{Kind::kData, 507, 'a'}, {Kind::kCompressed, 1029, 'z'}}}, 5);
  CHECK(chain.disk->size() == 1536);
  CHECK(chain.text(0, 1536) == repeat(502, 'a') + repeat(1029, 'z') + repeat(5, '0'));
  CHECK(chain.text(600, 2) == "zz");
}

TEST_CASE("clusters of two layers at one offset are two clusters") {
  const Chain chain(
      {{{Kind::kCompressed, 512, 'a'}, {Kind::kParent, 512}}, {{Kind::kCompressed, 1024, 'b'}}});
  CHECK(chain.text(0, 1024) == repeat(512, 'a') + repeat(512, 'b'));
}

TEST_CASE("prefetch brings compressed clusters into memory") {
  const Chain chain({{{Kind::kCompressed, 4096, 'z'}, {Kind::kData, 512, 'a'}}});
  REQUIRE(chain.disk->prefetch(0, 4608));
  CHECK(chain.readers[0]->loads == 1);
  CHECK(chain.text(0, 4096) == repeat(4096, 'z'));
  CHECK(chain.readers[0]->loads == 1);
}

TEST_CASE("long runs of zeros may be noted instead of written") {
  const Chain chain({{{Kind::kData, 4096, 'a'},
                      {Kind::kZero, 8192},
                      {Kind::kData, 4096, 'b'},
                      {Kind::kZero, 512}}});
  ZeroRuns zeros;
  const std::string text = chain.text(0, 16896, &zeros);
  REQUIRE(zeros.end() - zeros.begin() == 1);
  CHECK(zeros.begin()->offset == 4096);
  CHECK(zeros.begin()->length == 8192);
  CHECK(text.substr(0, 4096) == repeat(4096, 'a'));
  CHECK(text.substr(4096, 8192) == repeat(8192, '#'));  // left alone
  CHECK(text.substr(12288) == repeat(4096, 'b') + repeat(512, '0'));
}

TEST_CASE("neighbouring runs of zeros are joined, and a full list says so") {
  ZeroRuns zeros;
  CHECK(!zeros.add(0, ZeroRuns::kMinLength - 1));
  CHECK(zeros.add(0, 4096));
  CHECK(zeros.add(4096, 512));  // short, but it goes on with the run before it
  CHECK(zeros.begin()->length == 4608);
  for (uint64_t i = 1; i < ZeroRuns::kMaxRuns; ++i) CHECK(zeros.add(i << 20, 4096));
  CHECK(!zeros.add(uint64_t{ZeroRuns::kMaxRuns} << 20, 4096));
  CHECK(zeros.add(((ZeroRuns::kMaxRuns - 1) << 20) + 4096, 4096));
  CHECK(zeros.end() - zeros.begin() == ZeroRuns::kMaxRuns);
  zeros.clear();
  CHECK(zeros.begin() == zeros.end());
}

TEST_CASE("a disk of no bytes can be opened") {
  const Chain chain({std::vector<Piece>{}});
  CHECK(chain.disk->size() == 0);
  CHECK(chain.text(0, 0).empty());
  CHECK(chain.disk->prefetch(0, 0));
}

TEST_CASE("a reader without compression refuses load_cluster and names the file") {
  class Plain final : public Reader {
   public:
    uint64_t size() const override { return 0; }
    Result<Extent> map(uint64_t, uint64_t, MapFor) const override { return Extent{}; }
    std::vector<const Source*> sources() const override { return {}; }
  };
  const MemorySource source(Bytes(1));
  Extent extent;
  extent.source = &source;
  const auto loaded = Plain().load_cluster(extent, {});
  REQUIRE(!loaded);
  CHECK(loaded.error().file == "memory");
}

}  // namespace
}  // namespace underlay
