#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "io/memory_source.h"
#include "tools/img/dump_json.h"
#include "tools/img/dump_text.h"

namespace underlay::img {
namespace {

// A stream in memory.
class Printed {
 public:
  Printed() : stream_(::open_memstream(&text_, &size_)) { REQUIRE(stream_ != nullptr); }
  ~Printed() {
    std::fclose(stream_);
    std::free(text_);
  }
  Printed(const Printed&) = delete;
  Printed& operator=(const Printed&) = delete;

  std::FILE* stream() { return stream_; }
  std::string text() {
    std::fflush(stream_);
    return {text_, size_};
  }

 private:
  char* text_ = nullptr;
  size_t size_ = 0;
  std::FILE* stream_;
};

const MemorySource& image() {
  static const MemorySource source(std::vector<std::byte>(100, std::byte{0xab}));
  return source;
}

void put(DumpSink& sink, std::string_view name, uint64_t offset,
         const nlohmann::ordered_json& value, std::string_view meaning = "") {
  REQUIRE(sink.field(name, offset, 8, value, meaning));
}

void put_image(DumpSink& sink) {
  REQUIRE(sink.begin("header", 0, 16));
  put(sink, "magic", 0, "QFI\xfb");
  put(sink, "size", 8, uint64_t{1} << 20, "1 MiB");
  REQUIRE(sink.begin("L1 table", 16, 56));
  const std::array<uint64_t, 6> entries{7, 0, 0, 0, 7, 7};
  for (size_t i = 0; i < entries.size(); ++i) {
    put(sink, fmt::format("[{}]", i), 16 + 8 * i, entries[i], entries[i] == 0 ? "unallocated" : "");
  }
}

std::string text_of(DumpChoice choice, bool all, const std::function<void(DumpSink&)>& fill) {
  Printed printed;
  DumpText sink(std::move(choice), image(), all, printed.stream());
  fill(sink);
  sink.end(true);
  return printed.text();
}

std::string json_text_of(DumpChoice choice, bool whole) {
  Printed printed;
  DumpJson sink(std::move(choice), image(), "a \"path\"\xff", "qcow2", printed.stream());
  put_image(sink);
  sink.end(whole);
  return printed.text();
}

nlohmann::ordered_json json_of(DumpChoice choice) {
  return nlohmann::ordered_json::parse(json_text_of(std::move(choice), true));
}

TEST_CASE("dump: aligned lines under a heading, equal entries of a table summed up") {
  CHECK(text_of({}, false, put_image) ==
        "header: 16 bytes at 0x0\n"
        "  0x00000000  magic  QFI\\xfb\n"
        "  0x00000008  size   1048576 = 0x100000  (1 MiB)\n"
        "\n"
        "L1 table: 56 bytes at 0x10\n"
        "  0x00000010  [0]     7\n"
        "  0x00000018  [1..3]  0  (unallocated)\n"
        "  0x00000030  [4..5]  7\n");
  const std::string all = text_of({}, true, put_image);
  CHECK(all.find("  0x00000020  [2]  0  (unallocated)\n") != std::string::npos);
}

TEST_CASE("dump: a field without a value ends with its name") {
  const std::string text = text_of({}, false, [](DumpSink& sink) {
    REQUIRE(sink.begin("header", 0, 16));
    put(sink, "description", 0, "");
    put(sink, "a longer name", 8, "", "empty");
  });
  CHECK(text.find("  0x00000000  description\n") != std::string::npos);
  CHECK(text.find("  0x00000008  a longer name    (empty)\n") != std::string::npos);
}

TEST_CASE("dump: only entries that follow each other are summed up") {
  const auto lines = [](uint64_t second_offset, std::string_view second_name) {
    return text_of({}, false, [=](DumpSink& sink) {
      REQUIRE(sink.begin("BAT", 0, 100));
      put(sink, "[5]", 0, 0u);
      put(sink, second_name, second_offset, 0u);
    });
  };
  CHECK(lines(8, "[6]").find("[5..6]") != std::string::npos);
  for (const auto& second : {std::pair{8, "[7]"},
                             {16, "[6]"},
                             {8, "[5]"},
                             {8, "[]"},
                             {8, "b[6]"},
                             {8, "[99999999999999999999]"},
                             {8, "[6"}}) {
    const char* const name = second.second;
    CAPTURE(name);
    CHECK(lines(static_cast<uint64_t>(second.first), name).find("..") == std::string::npos);
  }
}

TEST_CASE("dump: text of an image cannot drive a terminal") {
  const std::string text = text_of({}, false, [](DumpSink& sink) {
    REQUIRE(sink.begin("snapshot \x1b[2J", 0, 100));
    put(sink, "name\n", 0, "\x1b]0;owned\a", "\x9b\r");
    put(sink, "names", 8, nlohmann::ordered_json::array({"\xff\x1b"}));
  });
  CHECK(text.find_first_of("\x1b\a\r\x9b") == std::string::npos);
  CHECK(std::count(text.begin(), text.end(), '\n') == 3);
}

TEST_CASE("dump: structures are chosen by patterns, in any case") {
  const auto text = [](std::vector<std::string> patterns) {
    return text_of({.structures = std::move(patterns)}, false, put_image);
  };
  CHECK(text({"l1*"}).starts_with("L1 table: "));
  CHECK(text({"nothing", "HEADER"}).find("L1") == std::string::npos);
  CHECK(text({"nothing"}).empty());
  Printed printed;
  DumpText sink({.structures = {"l1 *"}}, image(), false, printed.stream());
  CHECK(sink.wants_fields("L1 table"));
  CHECK_FALSE(sink.wants_fields("header"));
  CHECK_FALSE(sink.found());
  put_image(sink);
  CHECK(sink.found());
}

TEST_CASE("dump: headings alone") {
  CHECK(text_of({.fields = false}, false, put_image) ==
        "header: 16 bytes at 0x0\nL1 table: 56 bytes at 0x10\n");
  const auto document = json_of({.fields = false});
  CHECK_FALSE(document["structures"][0].contains("fields"));
}

TEST_CASE(
    "dump: the bytes of a field, as many as fit a line or two, and none from beyond the end") {
  const std::string text = text_of({.hex = true}, false, [](DumpSink& sink) {
    REQUIRE(sink.begin("header", 0, 100));
    REQUIRE(sink.field("short", 0, 2, 1u, ""));
    REQUIRE(sink.field("long", 10, 65, 1u, ""));
    REQUIRE(sink.field("lost", 99, 2, 1u, ""));
  });
  CHECK(text.find("short  1\n              ab ab\n") != std::string::npos);
  CHECK(text.find(" ab ...\n") != std::string::npos);
  CHECK(text.ends_with("lost   1\n"));
}

TEST_CASE("dump: one JSON document, and none when the dump is not whole") {
  const auto document = json_of({});
  CHECK(document["version"] == 1);
  CHECK(document["format"] == "qcow2");
  CHECK(document["structures"].size() == 2);
  CHECK(document["structures"][0]["fields"][1] == nlohmann::ordered_json{{"name", "size"},
                                                                         {"offset", 8},
                                                                         {"length", 8},
                                                                         {"value", 1048576},
                                                                         {"meaning", "1 MiB"}});
  CHECK(document["structures"][1]["fields"].size() == 6);
  CHECK_FALSE(nlohmann::json::accept(json_text_of({}, false)));
  CHECK(json_of({.structures = {"nothing"}})["structures"].empty());
}

}  // namespace
}  // namespace underlay::img
