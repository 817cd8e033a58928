#include "io/http/remote_name.h"

#include <doctest/doctest.h>

namespace underlay {
namespace {

constexpr const char* kChild = "http://host:8080/images/child.qcow2";

std::string beside(const std::string& namer, std::string_view name,
                   const std::vector<std::string>& allowed = {}) {
  const auto found = name_beside(namer, name, allowed);
  return found ? *found : "";
}

TEST_CASE("remote name: http, https and s3, as they are written") {
  for (const char* name : {"http://host/x", "https://host", "s3://bucket/key"}) {
    CHECK(is_remote_name(name));
  }
  for (const char* name : {"HTTP://host/x", "Https://host/x", "S3://bucket/key"}) {
    CHECK(is_remote_name(name));
  }
  CHECK(shown_name("HTTPS://h/a?secret") == "HTTPS://h/a");
  for (const char* name : {"", "http:/x", "./http://host/x", "ftp://host/x", "nbd://host", "s3:/x",
                           "/http://host/x"}) {
    CAPTURE(name);
    CHECK_FALSE(is_remote_name(name));
  }
}

TEST_CASE("remote name: what may be secret is not shown") {
  CHECK(shown_name("https://h/a/b?X-Amz-Signature=secret") == "https://h/a/b");
  CHECK(shown_name("https://user:secret@h/a") == "https://h/a");
  CHECK(shown_name("https://user:sec@ret@h/a@b?c") == "https://h/a@b");
  CHECK(shown_name("https://h?secret") == "https://h");
  CHECK(shown_name("https://u:secret@h") == "https://h");
  CHECK(shown_name("https://h/a#b") == "https://h/a#b");
  CHECK(shown_name("https://h/a?secret#b") == "https://h/a#b");
  CHECK(shown_name("https://u:secret@h#b") == "https://h#b");
  CHECK(shown_name("s3://bucket/a?b@c") == "s3://bucket/a?b@c");
  CHECK(shown_name("/local/a?b@c") == "/local/a?b@c");
}

TEST_CASE("remote name: what lasts of a URL has no secrets, and all that chooses the content") {
  CHECK(lasting_url("https://h/a") == "https://h/a");
  CHECK(lasting_url("https://h/a?") == "https://h/a");
  CHECK(lasting_url("https://h/a?versionId=7&X-Amz-Signature=secret&X-Amz-Date=1") ==
        "https://h/a?versionId=7");
  CHECK(lasting_url("https://h/a?Signature=secret&generation=1&&snapshot=2") ==
        "https://h/a?generation=1&snapshot=2");
  CHECK(lasting_url("https://h/a?sv=1&sig=secret") == "https://h/a");
  CHECK(lasting_url("https://h/a?Policy=p&Signature=secret&Key-Pair-Id=7") == "https://h/a");
  CHECK(lasting_url("https://h/a?X-Goog-Date=1&x-goog-signature=secret") == "https://h/a");
  CHECK(lasting_url("https://h/a?st=1&se=2&sp=r&sr=b&sig=secret&snapshot=3") ==
        "https://h/a?snapshot=3");
  // A password, a content's number: nobody knows. Nor without the signature that they belong to.
  for (const char* query :
       {"token=secret", "id=1", "X-Amz-Signature=1&id=2", "versionIds=3", "=1", "X-Amz-Date=1",
        "st=1", "se=1", "si=1", "sp=1", "sr=1", "policy=1", "expires=1", "sig=1&expires=2",
        "Signature=1&st=2", "X-Amz-Signature=1&sv=2", "X-Goog-Date=1&X-Amz-Signature=2"}) {
    CAPTURE(query);
    CHECK(lasting_url(std::string("https://h/a?") + query) == "");
  }
}

TEST_CASE("remote name: a name leads beneath the image's folder") {
  CHECK(beside(kChild, "base.qcow2") == "http://host:8080/images/base.qcow2");
  CHECK(beside(kChild, "./a/../b/base") == "http://host:8080/images/b/base");
  CHECK(beside(kChild, "../images/base") == "http://host:8080/images/base");
  CHECK(beside("http://host/child", "base") == "http://host/base");
  CHECK(beside("s3://bucket/a/child", "b/base?#%20") == "s3://bucket/a/b/base?#%20");
}

TEST_CASE("remote name: the image's own folder is taken as servers take it") {
  CHECK(beside("s3://bucket/a//child", "base") == "s3://bucket/a//base");
  CHECK(beside("s3://bucket/a//child", "b//base") == "s3://bucket/a//b/base");
  CHECK(beside("http://host/x/../c.qcow2", "base") == "http://host/base");
  CHECK(beside("http://host/x/../c.qcow2", "../base").empty());
  CHECK(beside("http://host/../c.qcow2", "base").empty());
}

TEST_CASE("remote name: letters that mean something in a URL are written so that they do not") {
  CHECK(beside(kChild, "a b") == "http://host:8080/images/a%20b");
  CHECK(beside(kChild, "a?b#c%2e") == "http://host:8080/images/a%3Fb%23c%252e");
  CHECK(beside(kChild, "%2e%2e/x") == "http://host:8080/images/%252e%252e/x");
  CHECK(beside(kChild, "..\\x") == "http://host:8080/images/..%5Cx");
  CHECK(beside(kChild, "\xc3\xa4@:") == "http://host:8080/images/%C3%A4%40%3A");
}

TEST_CASE("remote name: no name leads elsewhere") {
  for (const char* name : {"..", ".", "../x", "a/../../x", "../images", "../imagesx/y", "/x",
                           "//other/x", "/images/x", "../../../x", "../images/../x"}) {
    CAPTURE(name);
    const auto found = name_beside(kChild, name, {});
    REQUIRE_FALSE(found);
    CHECK(found.error().kind == ErrorKind::kDenied);
    CHECK(found.error().file == kChild);
  }
  using namespace std::string_view_literals;
  CHECK(name_beside(kChild, "", {}).error().kind == ErrorKind::kMalformed);
  CHECK(name_beside(kChild, "a\0b"sv, {}).error().kind == ErrorKind::kMalformed);
  CHECK(name_beside(kChild, std::string(5000, 'x'), {}).error().kind == ErrorKind::kMalformed);
  CHECK_FALSE(name_beside("http://host", "x", {}));
  CHECK(beside("s3://bucket/child", "../other/x").empty());
}

TEST_CASE("remote name: the operator allows further folders") {
  const std::string all = *remote_folder("http://host:8080/bases");
  CHECK(all == "http://host:8080/bases/");
  CHECK(beside(kChild, "../bases/x", {all}) == "http://host:8080/bases/x");
  CHECK(beside(kChild, "../basesx/x", {all}).empty());
  CHECK(beside(kChild, "../bases/../x", {all}).empty());
  CHECK(beside("http://other/images/c", "../bases/x", {all}).empty());
  CHECK(remote_folder("http://host/a?b").error().kind == ErrorKind::kUsage);
  CHECK(remote_folder("http://host/a#b").error().kind == ErrorKind::kUsage);
  CHECK(remote_folder("http://u:p@host/a").error().kind == ErrorKind::kUsage);
}

TEST_CASE("remote names: one object has many") {
  for (const char* other :
       {"http://host/a/base+1.vhd", "HTTP://HOST/a/base+1.vhd", "http://host:80/a/base+1.vhd",
        "http://host/a/base%2B1.vhd", "http://host/%61/base%2b1.vhd", "http://host/./a/base+1.vhd",
        "http://host/a/../a//base+1.vhd", "http://user:word@host/a/base+1.vhd?signature=x",
        "http://host/../a/base+1.vhd", "http://host/%2e%2e/a/x/../base+1.vhd",
        "http://host/a//../base+1.vhd", "http://host:/a/base+1.vhd",
        "http://host:080/a/base+1.vhd"}) {
    CAPTURE(other);
    CHECK(may_be_same_object("http://host/a/base+1.vhd", other));
  }
  for (const char* other :
       {"https://host/a/base+1.vhd", "http://host:8080/a/base+1.vhd", "http://host/a/base1.vhd",
        "http://host/A/base+1.vhd", "http://other/a/base+1.vhd", "s3://host/a/base+1.vhd",
        "http://host/a/x//../base+1.vhd", "/host/a/base+1.vhd"}) {
    CAPTURE(other);
    CHECK(!may_be_same_object("http://host/a/base+1.vhd", other));
  }
  CHECK(may_be_same_object("https://host:443/a", "https://host/a"));
  CHECK(may_be_same_object("s3://bucket/a+b", "S3://bucket/a+b"));
  CHECK(may_be_same_object("http://[::1]/a", "http://[::1]:80/a"));
  CHECK(!may_be_same_object("http://[::1]/a", "http://[::]/a"));
  CHECK(!may_be_same_object("s3://bucket/a+b", "s3://bucket/a%2Bb"));  // keys are not encoded
}

}  // namespace
}  // namespace underlay
