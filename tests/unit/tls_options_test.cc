// What the command line says of TLS.
#include <doctest/doctest.h>

#include "server/tls/authorization.h"
#include "server/tls/psk_file.h"
#include "tests/support/parsed_options.h"

namespace underlay {
namespace {

using test::check_refused;
using test::parsed;
using test::Words;

const std::string kCreds = "tls-creds-x509,id=c,dir=/keys,endpoint=server";

// A command line with these objects and words.
Words words(const std::vector<std::string>& objects, const Words& more) {
  Words all;
  for (const std::string& object : objects) all.insert(all.end(), {"--object", object});
  all.insert(all.end(), more.begin(), more.end());
  all.push_back("F");
  return all;
}

void check_usage(const std::vector<std::string>& objects, const Words& more,
                 const std::string& message) {
  check_refused(words(objects, more), ErrorKind::kUsage, message);
}

}  // namespace

TEST_CASE("tls options: credentials alone demand TLS, as in qemu-nbd") {
  const Options options = parsed(words({kCreds}, {"--tls-creds", "c"}));
  CHECK(options.tls == TlsMode::kRequire);
  REQUIRE(options.tls_creds);
  CHECK(options.tls_creds->kind == TlsObject::Kind::kX509);
  CHECK(options.tls_creds->folder == "/keys");
  CHECK(options.tls_creds->verify_peer);
  CHECK_FALSE(options.tls_authz);
  CHECK(parsed({"F"}).tls == TlsMode::kOff);
}

TEST_CASE("tls options: --tls says how much") {
  const auto mode = [](const std::string& word) {
    return parsed(words({kCreds}, {"--tls-creds", "c", "--tls", word})).tls;
  };
  CHECK(mode("off") == TlsMode::kOff);
  CHECK(mode("on") == TlsMode::kOffer);
  CHECK(mode("require") == TlsMode::kRequire);
  check_usage({kCreds}, {"--tls-creds", "c", "--tls", "maybe"}, "--tls");
  check_usage({}, {"--tls", "on"}, "--tls=on needs --tls-creds");
}

TEST_CASE("tls options: fields of credentials") {
  const Options x509 = parsed(words({"secret,id=s,file=/s", kCreds + ",verify-peer=no,passwordid=s,"
                                                                     "priority=NORMAL"},
                                    {"--tls-creds", "c"}));
  CHECK_FALSE(x509.tls_creds->verify_peer);
  CHECK(x509.tls_creds->password_id == "s");
  CHECK(x509.tls_creds->priority == "NORMAL");
  const Options psk =
      parsed(words({"tls-creds-psk,id=c,dir=/a,,b,endpoint=server"}, {"--tls-creds", "c"}));
  CHECK(psk.tls_creds->kind == TlsObject::Kind::kPsk);
  CHECK(psk.tls_creds->folder == "/a,b");
  CHECK(psk.tls_creds->user == "qemu");
}

TEST_CASE("tls options: what cannot be is told") {
  const Words use = {"--tls-creds", "c"};
  check_usage({}, use, "no --object with id=c");
  check_usage({"tls-creds-x509,id=c,dir=/keys"}, use, "must say endpoint=server");
  check_usage({"tls-creds-x509,id=c,endpoint=server"}, use, "needs dir=FOLDER");
  check_usage({"tls-creds-x509,dir=/keys,endpoint=server"}, use, "needs an id");
  check_usage({"tls-creds-x509,id=c,dir=/keys,endpoint=both"}, use, "client or server");
  check_usage({kCreds + ",verify-peer=maybe"}, use, "yes or no");
  check_usage({kCreds + ",verify-peer"}, use, "is not KEY=VALUE");
  check_usage({kCreds, kCreds}, use, "two have the id");
  const auto unsupported = [&](const std::string& object, const std::string& message) {
    check_refused(words({object}, use), ErrorKind::kUnsupported, message);
  };
  unsupported("tls-creds-anon,id=c,endpoint=server", "tls-creds-anon is not supported");
  unsupported(kCreds + ",sanity-check=off", "has no \"sanity-check\"");
  unsupported("tls-creds-psk,id=c,dir=/k,endpoint=server,verify-peer=no", "has no");
}

TEST_CASE("tls options: authorization goes by certificates that are verified") {
  const std::string simple = "authz-simple,id=a,identity=O=Tests,,CN=alice";
  const Words use = {"--tls-creds", "c", "--tls-authz", "a"};
  CHECK(parsed(words({kCreds, simple}, use)).tls_authz->identity == "O=Tests,CN=alice");
  check_usage({kCreds}, use, "no --object with id=a");
  check_usage({kCreds + ",verify-peer=no", simple}, use, "verify-peer=yes");
  check_usage({"tls-creds-psk,id=c,dir=/k,endpoint=server", simple}, use, "tls-creds-x509");
  check_usage({simple}, {"--tls-authz", "a"}, "needs tls-creds-x509");
  check_usage({kCreds, "authz-simple,id=a"}, use, "identity=");
  check_refused(words({kCreds, "authz-pam,id=a,service=x"}, use), ErrorKind::kUnsupported,
                "authz-pam is not supported");
}

TEST_CASE("authorization: the first rule that matches decides") {
  const auto list = Authorization::parse(R"({"policy": "deny", "rules": [
      {"match": "CN=bob", "policy": "deny"},
      {"match": "CN=*", "policy": "allow", "format": "glob"}]})");
  REQUIRE(list);
  CHECK(list->allows("CN=alice"));
  CHECK_FALSE(list->allows("CN=bob"));
  CHECK_FALSE(list->allows("O=Tests"));
  CHECK(Authorization::parse(R"({"policy": "allow"})")->allows("anybody"));
  CHECK_FALSE(Authorization::parse("{}")->allows("anybody"));
}

TEST_CASE("authorization: a list that is not understood is refused, not passed over") {
  for (const char* text :
       {"", "[]", "{", R"({"policy": "maybe"})", R"({"rules": {}})", R"({"rules": [1]})",
        R"({"rules": [{"match": "x"}]})", R"({"rules": [{"match": 1, "policy": "allow"}]})",
        R"({"rules": [{"match": "x", "policy": "allow", "format": "regex"}]})"}) {
    CAPTURE(text);
    const auto list = Authorization::parse(text);
    REQUIRE_FALSE(list);
    CHECK(list.error().kind == ErrorKind::kMalformed);
  }
}

TEST_CASE("psk file: users and keys") {
  const auto file = PskFile::parse("# keys\nalice:00ff\r\n\nbob:with:colon:0A\nalice:11");
  REQUIRE(file);
  REQUIRE(file->find("alice") != nullptr);
  CHECK(as_text(file->find("alice")->bytes()) == std::string_view("\0\xff", 2));
  REQUIRE(file->find("bob:with:colon") != nullptr);
  CHECK(as_text(file->find("bob:with:colon")->bytes()) == "\n");
  CHECK(file->find("bob") == nullptr);
}

TEST_CASE("psk file: a line that is no key is named") {
  const auto refused = [](std::string_view text, const std::string& message) {
    const auto file = PskFile::parse(text);
    REQUIRE_FALSE(file);
    CHECK(file.error().message.find(message) != std::string::npos);
  };
  refused("", "holds no key");
  refused("alice", "line 1: is not USER:KEY");
  refused("alice:00\n:00", "line 2: is not USER:KEY");
  refused("#616c696365:00", "line 1: binary user names");
  refused("alice:", "line 1: a key has 0");
  refused("alice:000", "line 1: a key has 3");
  refused("alice:0x", "line 1: a key is not hexadecimal");
  refused("alice:" + std::string(1026, '0'), "line 1: a key has 1026");
}

}  // namespace underlay
