#include "io/http/write_reply.h"

#include <doctest/doctest.h>

#include "io/http/xml_element.h"

namespace underlay {
namespace {

using Meaning = WriteVerdict::Meaning;

TEST_CASE("write reply: what a status means") {
  for (const long done : {200L, 201L, 204L}) CHECK(judge_write(done, "").meaning == Meaning::kDone);
  for (const long later : {408L, 429L, 500L, 502L, 503L, 504L}) {
    CHECK(judge_write(later, "").meaning == Meaning::kLater);
  }
  for (const long keys : {400L, 401L, 403L}) CHECK(judge_write(keys, "").meaning == Meaning::kKeys);
  for (const long failed : {100L, 301L, 307L, 404L, 405L, 409L, 411L, 413L, 418L, 501L, 507L}) {
    CAPTURE(failed);
    const WriteVerdict verdict = judge_write(failed, "");
    CHECK(verdict.meaning == Meaning::kFailed);
    REQUIRE_FALSE(verdict.result);
    CHECK(verdict.result.error().message.find(std::to_string(failed)) != std::string::npos);
  }
  CHECK(judge_write(413, "").result.error().kind == ErrorKind::kLimit);
  CHECK(judge_write(403, "<Code>AccessDenied</Code>").result.error().message.find("AccessDenied") !=
        std::string::npos);
}

TEST_CASE("write reply: a document is kept up to a limit") {
  std::string document;
  for (int i = 0; i < 100; ++i) add_to_document(std::string(1000, 'x'), document);
  CHECK(document.size() == 64 << 10);
}

TEST_CASE("xml element: its text, with the entities resolved") {
  CHECK(element_of("<A><B>one</B></A>", "B", 10) == "one");
  CHECK(element_of("<B>&lt;&amp;amp;&quot;&apos;&gt;</B>", "B", 100) == "<&amp;\"'>");
  CHECK(element_of("<A><B>one</B></A>", "A", 10).empty());
  CHECK(element_of("<B>one", "B", 10).empty());
  CHECK(element_of("<B>one</C>", "B", 10).empty());
  CHECK(element_of("<BB>one</BB>", "B", 10).empty());
  CHECK(element_of("<B>0123456789</B>", "B", 9).empty());
  CHECK(element_of("", "B", 9).empty());
}

TEST_CASE("xml element: what is escaped is read as it was") {
  for (const std::string text : {"\"a&b\"", "<&amp;>", "'", ""}) {
    CAPTURE(text);
    const std::string escaped = xml_escaped(text);
    CHECK(escaped.find_first_of("<>\"'") == std::string::npos);
    CHECK(element_of("<B>" + escaped + "</B>", "B", 100) == text);
  }
}

}  // namespace
}  // namespace underlay
