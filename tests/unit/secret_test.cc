// Secrets in files, as --object secret names them.
#include "formats/encryption/secret.h"

#include <doctest/doctest.h>

#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

Error refusal(std::string_view text) {
  const auto file = parse_secret_object("--object", text);
  INFO(text);
  REQUIRE_FALSE(file);
  return file.error();
}

Result<std::string> content(const std::string& path, bool base64 = false) {
  const Secret secret = TRY(read_secret({.id = "s", .path = path, .base64 = base64}));
  return std::string(as_text(secret.bytes()));
}

}  // namespace

TEST_CASE("secret: an object is read as qemu reads it") {
  const auto file = parse_secret_object("--object", "secret,id=s0,file=/a,,b,format=base64");
  REQUIRE(file);
  CHECK(file->id == "s0");
  CHECK(file->path == "/a,b");
  CHECK(file->base64);
  const auto raw = parse_secret_object("--object", "qom-type=secret,file=/a,id=s0,format=raw");
  REQUIRE(raw);
  CHECK_FALSE(raw->base64);
}

TEST_CASE("secret: an object that is none, or not in a plain file, is refused") {
  CHECK(refusal("secret").kind == ErrorKind::kUsage);
  CHECK(refusal("secret,id=s").kind == ErrorKind::kUsage);
  CHECK(refusal("secret,file=/a").kind == ErrorKind::kUsage);
  CHECK(refusal("secret,id=s,file=/a,format=hex").kind == ErrorKind::kUsage);
  CHECK(refusal("").kind == ErrorKind::kUnsupported);
  CHECK(refusal("tls-creds-psk,id=a").kind == ErrorKind::kUnsupported);
  CHECK(refusal("secret,id=s,file=/a,keyid=k").message.find("\"keyid\"") != std::string::npos);
}

TEST_CASE("secret: no message repeats what may be the secret") {
  for (const char* text : {"secret,id=s,data=opensesame", "secret,id=s,file=/a,opensesame",
                           "secret,id=s,file=/a,format=opensesame", "secret,id=s,iv=opensesame"}) {
    CHECK(refusal(text).to_string().find("opensesame") == std::string::npos);
  }
  const TempFolder folder;
  const auto bad = content(folder.write("key", "opensesame!"), true);
  REQUIRE_FALSE(bad);
  CHECK(bad.error().to_string().find("opensesame") == std::string::npos);
}

TEST_CASE("secret: all bytes of the file count, or what they say in base64") {
  const TempFolder folder;
  CHECK(content(folder.write("a", "open sesame\n")) == "open sesame\n");
  CHECK(content(folder.write("b", "")) == "");
  CHECK(content(folder.write("c", std::string("\0\xff", 2))) == std::string("\0\xff", 2));
  CHECK(content(folder.write("d", "b3BlbiBzZXNhbWU=\n"), true) == "open sesame");
  CHECK(content(folder.write("e", "b3BlbiBz\nZXNhbWU="), true) == "open sesame");
  CHECK(content(folder.write("f", "AAAA"), true) == std::string(3, '\0'));
}

TEST_CASE("secret: a file that is missing, too long or no base64 is refused by its name") {
  const TempFolder folder;
  const auto refused = [](const Result<std::string>& result, ErrorKind kind,
                          std::string_view words) {
    REQUIRE_FALSE(result);
    CHECK(result.error().kind == kind);
    CHECK(result.error().to_string().find(words) != std::string::npos);
  };
  refused(content(folder.path("none")), ErrorKind::kIo, "secret \"s\": cannot open");
  refused(content(folder.path()), ErrorKind::kIo, "secret \"s\": cannot read");
  const std::string most(kMaxSecretBytes, 'x');
  CHECK(content(folder.write("most", most)) == most);
  refused(content(folder.write("more", most + "x")), ErrorKind::kLimit, "more than 65536 bytes");
  refused(content(folder.write("bad", "b3Bl*"), true), ErrorKind::kMalformed, "no base64");
  refused(content(folder.write("cut", "b3Bl="), true), ErrorKind::kMalformed, "no base64");
}

TEST_CASE("secret: find_secret looks by id") {
  const std::vector<SecretFile> secrets = {{.id = "a", .path = "/a"}, {.id = "b", .path = "/b"}};
  CHECK(find_secret("x", "b", secrets)->path == "/b");
  CHECK(find_secret("x", "c", secrets).error().kind == ErrorKind::kUsage);
}

}  // namespace underlay
