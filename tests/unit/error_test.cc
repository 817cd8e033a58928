#include "io/error.h"

#include <doctest/doctest.h>

#include <cerrno>

namespace underlay {
namespace {

Result<int> number_or_error(bool good) {
  if (!good) return fail(ErrorKind::kMalformed, "field is {}, above {}", 7, 6);
  return 41;
}

Result<int> one_more(bool good) { return TRY(number_or_error(good)) + 1; }

TEST_CASE("TRY gives the value or returns the error unchanged") {
  CHECK(*one_more(true) == 42);
  const auto failed = one_more(false);
  REQUIRE(!failed);
  CHECK(failed.error().kind == ErrorKind::kMalformed);
  CHECK(failed.error().message == "field is 7, above 6");
}

TEST_CASE("an error is one line with file, message, offset and errno") {
  Error error = in_file(fail_errno(ENOENT, "cannot read"), "a.img", 512).value();
  CHECK(error.to_string() == "a.img: cannot read (at byte 512): No such file or directory");
}

TEST_CASE("context is prepended and the innermost file wins") {
  Error error = in_file(fail(ErrorKind::kIo, "broken"), "inner", 1).value();
  error = in_file(with_context(std::move(error), "table: "), "outer", 2).value();
  CHECK(error.to_string() == "inner: table: broken (at byte 1)");
}

TEST_CASE("would_block says nothing but its kind") {
  const Error error = would_block().value();
  CHECK(error.kind == ErrorKind::kWouldBlock);
  CHECK(error.message.empty());
}

TEST_CASE("printable keeps text and escapes control bytes") {
  CHECK(printable("plain text, \xc3\xbcml\xc3\xa4ute \xe2\x82\xac \xf0\x9f\x98\x80") ==
        "plain text, \xc3\xbcml\xc3\xa4ute \xe2\x82\xac \xf0\x9f\x98\x80");
  CHECK(printable("a\nb\r\t\x1b[2J\x7f") == "a\\x0ab\\x0d\\x09\\x1b[2J\\x7f");
  CHECK(printable(std::string_view("a\0b", 3)) == "a\\x00b");
  CHECK(printable("a\xe2\x80\xae"
                  "b\xe2\x81\xa6") ==
        "a\\xe2\\x80\\xae"
        "b\\xe2\\x81\\xa6");  // bidi
  CHECK(printable("\xe2\x80\xa9\xe2\x80\xaf\xe2\x81\xa5\xe2\x81\xaa") ==
        "\xe2\x80\xa9\xe2\x80\xaf\xe2\x81\xa5\xe2\x81\xaa");
  CHECK(printable("\xc2\x9b") == "\\xc2\\x9b");  // CSI as a C1 control character
}

TEST_CASE("printable escapes what is no UTF-8") {
  CHECK(printable("\xff") == "\\xff");
  CHECK(printable("\xc0\xaf") == "\\xc0\\xaf");                    // overlong '/'
  CHECK(printable("\xe0\x80\xaf") == "\\xe0\\x80\\xaf");           // overlong
  CHECK(printable("\xed\xa0\x80") == "\\xed\\xa0\\x80");           // surrogate
  CHECK(printable("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");  // past U+10FFFF
  CHECK(printable("\xe2\x82") == "\\xe2\\x82");                    // cut off
  CHECK(printable("\xe2\x28\xa1") == "\\xe2(\\xa1");               // wrong continuation
  CHECK(printable("\x80") == "\\x80");                             // lone continuation
}

TEST_CASE("printable cuts long text and says so") {
  CHECK(printable(std::string(100, 'x'), 10) == "xxxxxxxxxx...");
  CHECK(printable(std::string(10, 'x'), 10) == "xxxxxxxxxx");
  CHECK(printable(std::string(1 << 20, '\x01')).size() <= 4096 + 10);
}

TEST_CASE("an error's line never holds control bytes, whatever an image is called") {
  const Error error = in_file(fail(ErrorKind::kIo, "name \"{}\"", "x\n\x1b]0;y"), "a\nb").value();
  CHECK(error.to_string() == "a\\x0ab: name \"x\\x0a\\x1b]0;y\"");
}

}  // namespace
}  // namespace underlay
