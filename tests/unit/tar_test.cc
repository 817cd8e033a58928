#include "formats/container/tar.h"

#include <doctest/doctest.h>

#include "formats/container/tar_layout.h"
#include "io/memory_source.h"
#include "tests/support/tar_builder.h"

namespace underlay::tar {
namespace {

Result<std::vector<Member>> list(const Bytes& archive) {
  return list_members(MemorySource(archive, "archive"));
}
Result<std::vector<Member>> list(const TarBuilder& builder) { return list(builder.build()); }

ErrorKind error_of(const TarBuilder& builder) {
  const auto members = list(builder);
  return members ? ErrorKind::kUsage : members.error().kind;
}

// One file of 5 bytes, whose header is changed.
ErrorKind with_header(const TarBuilder::Change& change) {
  return error_of(TarBuilder().add("a", "12345", '0', change));
}

TEST_CASE("tar: files lie where the headers say, other members are passed over") {
  TarBuilder builder;
  builder.add("folder/", "", '5').add("./folder/a", std::string(513, 'x')).add("link", "", '2');
  builder.add("old", "y", '\0').add("contiguous", "", '7').add("unknown", "zz", 'Z');
  const auto members = list(builder).value();
  REQUIRE(members.size() == 3);
  CHECK(members[0].name == "folder/a");
  CHECK(members[0].offset == 1024);
  CHECK(members[0].size == 513);
  CHECK(members[1].name == "old");
  CHECK(members[1].offset == 1024 + 1024 + 1024);
  CHECK(members[2].name == "contiguous");
}

TEST_CASE("tar: one record of zeros is an end, none is a truncated archive") {
  TarBuilder builder;
  builder.add("a", "12345");
  CHECK(list(builder.build(1)));
  const auto cut = list(builder.build(0));
  REQUIRE_FALSE(cut);
  CHECK(cut.error().kind == ErrorKind::kTruncated);
}

TEST_CASE("tar: an archive cut anywhere is refused") {
  const Bytes whole = TarBuilder().add("a", "12345").add("b", std::string(1500, 'b')).build(1);
  for (size_t size = 0; size < whole.size(); size += 128) {
    const auto members =
        list(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)));
    CHECK_FALSE(members);
  }
}

TEST_CASE("tar: a header whose checksum is wrong is refused, signed sums are right") {
  Bytes archive = TarBuilder().add("a", "12345").build();
  archive[3] ^= std::byte{1};
  CHECK(list(archive).error().kind == ErrorKind::kMalformed);
  CHECK_FALSE(is_first_header(archive));
  archive[3] ^= std::byte{1};
  CHECK(is_first_header(archive));
  // Bytes from 0x80 on count as negative: 256 less for each.
  archive[10] = std::byte{0xe4};
  uint32_t sum = 0;
  for (size_t i = 0; i < 512; ++i) {
    sum += i >= 148 && i < 156 ? ' ' : std::to_integer<uint32_t>(archive[i]);
  }
  put_text(archive, 148, fmt::format("{:06o}", sum - 256));
  CHECK(list(archive));
  put_text(archive, 148, fmt::format("{:06o}", sum - 255));
  CHECK_FALSE(list(archive));
}

TEST_CASE("tar: sizes that are no number, negative, huge or beyond the end are refused") {
  for (const char* size : {"", "            ", "00000000009", "-0000000001", "0000000000x"}) {
    CHECK(with_header([&](MutableByteSpan header) {
            put_text(header, 124, std::string(12, '\0'));
            put_text(header, 124, size);
          }) == ErrorKind::kMalformed);
  }
  const auto binary = [](std::string_view bytes) {
    return with_header([&](MutableByteSpan header) { put_text(header, 124, bytes); });
  };
  using namespace std::string_view_literals;
  CHECK(binary("\x80\0\0\0\0\0\0\0\0\0\0\x05"sv) == ErrorKind::kUsage);
  CHECK(binary("\x80\0\0\0\0\0\0\0\0\x10\0\0"sv) == ErrorKind::kTruncated);
  CHECK(binary("\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"sv) == ErrorKind::kTruncated);
  CHECK(binary("\x80\0\0\0\xff\xff\xff\xff\xff\xff\xfe\x00"sv) == ErrorKind::kTruncated);
  CHECK(binary("\x80\0\0\x01\0\0\0\0\0\0\0\x05"sv) == ErrorKind::kMalformed);
  CHECK(binary("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfb"sv) == ErrorKind::kMalformed);
  CHECK(binary("77777777777\0"sv) == ErrorKind::kTruncated);
}

TEST_CASE("tar: links and folders have no data, and those that state some are refused") {
  for (const char type : {'1', '2', '3', '4', '5', '6'}) {
    CHECK(error_of(TarBuilder().add("a", "", type)) == ErrorKind::kUsage);
    CHECK(error_of(TarBuilder().add("a", "12345", type)) == ErrorKind::kUnsupported);
  }
}

TEST_CASE("tar: long names, by GNU and by pax, and POSIX's prefix") {
  const std::string name(300, 'n');
  CHECK(list(TarBuilder().add("x", name + '\0', 'L').add("a", "1").add("b", ""))->at(0).name ==
        name);
  CHECK(list(TarBuilder().add("x", name, 'L').add("a", "1").add("b", ""))->at(1).name == "b");
  const std::string pax = pax_record("mtime", "1.5") + pax_record("path", name);
  CHECK(list(TarBuilder().add("x", pax, 'x').add("a", "1"))->at(0).name == name);
  CHECK(list(TarBuilder().add("x", pax, 'X').add("a", "1"))->at(0).name == name);  // Solaris
  const auto prefixed = list(TarBuilder().add(
      "a", "1", '0', [](MutableByteSpan header) { put_text(header, 345, "some/folder"); }));
  CHECK(prefixed->at(0).name == "some/folder/a");
}

TEST_CASE("tar: the size of pax is the member's") {
  TarBuilder builder;
  builder.add("x", pax_record("size", "600"), 'x');
  builder.add("a", std::string(600, 'a'), '0',
              [](MutableByteSpan header) { put_text(header, 124, "00000000000"); });
  builder.add("b", "1");
  const auto members = list(builder).value();
  CHECK(members[0].size == 600);
  CHECK(members[1].name == "b");
  for (const char* size : {"", "-1", "1x", "99999999999999999999999"}) {
    CHECK(error_of(TarBuilder().add("x", pax_record("size", size), 'x').add("a", "")) ==
          ErrorKind::kMalformed);
  }
  CHECK(error_of(
            TarBuilder().add("x", pax_record("size", "18446744073709551615"), 'x').add("a", "")) ==
        ErrorKind::kTruncated);
}

TEST_CASE("tar: pax records of a wrong length are refused") {
  for (const char* records : {"5", "0 a=b\n", "3 a=b\n", "7 a=b\n", "6 a=b", "99 a=b\n", "6 abc\n",
                              "6a=bc\n", "-6 a=b\n", "99999999999999999999 a=b\n", "2 \n"}) {
    CAPTURE(records);
    CHECK(error_of(TarBuilder().add("x", records, 'x').add("a", "")) == ErrorKind::kMalformed);
  }
  CHECK(error_of(TarBuilder().add("x", "6 a=b\n", 'x').add("a", "")) == ErrorKind::kUsage);
}

TEST_CASE("tar: extended headers have a limit, and none names all members") {
  for (const char type : {'x', 'g', 'L', 'K'}) {
    CHECK(error_of(TarBuilder().add("x", std::string((64 << 10) + 1, 'n'), type)) ==
          ErrorKind::kLimit);
  }
  CHECK(error_of(TarBuilder().add("x", pax_record("path", "a"), 'g')) == ErrorKind::kUnsupported);
  CHECK(error_of(TarBuilder().add("x", pax_record("comment", "a"), 'g')) == ErrorKind::kUsage);
}

TEST_CASE("tar: sparse members are known as such or end the list") {
  CHECK(error_of(TarBuilder().add("a", "", 'S')) == ErrorKind::kUnsupported);
  CHECK(error_of(TarBuilder().add("a", "", 'M')) == ErrorKind::kUnsupported);
  const auto members = list(
      TarBuilder().add("x", pax_record("GNU.sparse.major", "1"), 'x').add("a", "1").add("b", ""));
  CHECK(members->at(0).sparse);
  CHECK_FALSE(members->at(1).sparse);
}

TEST_CASE("tar: the number of headers has a limit") {
  TarBuilder builder;
  for (size_t i = 0; i < kMaxMembers; ++i) builder.add("a", "");
  CHECK(list(builder)->size() == kMaxMembers);
  CHECK(error_of(builder.add("a", "")) == ErrorKind::kLimit);
}

}  // namespace
}  // namespace underlay::tar
