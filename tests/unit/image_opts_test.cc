// --image-opts strings, and which internal snapshot -l means.
#include "formats/options/image_opts.h"

#include <doctest/doctest.h>

#include <array>

#include "formats/snapshot_choice.h"
#include "server/options.h"

namespace underlay {
namespace {

ImageOpts parsed(std::string_view text) {
  const auto opts = parse_image_opts(text);
  REQUIRE_MESSAGE(opts, (opts ? std::string() : opts.error().to_string()));
  return *opts;
}

void check_refused(std::string_view text, ErrorKind kind, const std::string& part_of_message) {
  const auto opts = parse_image_opts(text);
  INFO(std::string(text));
  REQUIRE_FALSE(opts);
  CHECK(opts.error().kind == kind);
  const std::string message = opts.error().to_string();
  CHECK_MESSAGE(message.find(part_of_message) != std::string::npos, message);
}

}  // namespace

TEST_CASE("image-opts: driver and file") {
  const ImageOpts opts = parsed("driver=raw,file.filename=a.img");
  CHECK(opts.open.format == "raw");
  CHECK(opts.path == "a.img");
  CHECK(parsed("file.filename=a.img").open.format == "");
  CHECK(parsed("driver=raw,file.driver=file,file.filename=a:b").path == "a:b");
  CHECK(parsed("driver=file,filename=a:b").path == "a:b");
  CHECK(parsed("driver=file,filename=a").open.format == "raw");
  CHECK(parsed("driver=host_device,filename=/dev/x").path == "/dev/x");
  CHECK(parsed("driver=raw,file.filename=a,file.filename=b").path == "b");
  CHECK(parsed("driver=raw,file.filename=b,").path == "b");
}

TEST_CASE("image-opts: what lies on a server") {
  const ImageOpts opts = parsed("driver=qcow2,file.driver=https,file.url=https://h/a?b=c");
  CHECK(opts.open.format == "qcow2");
  CHECK(opts.path == "https://h/a?b=c");
  CHECK(parsed("driver=s3,url=s3://b/k").open.format == "raw");
  CHECK(parsed("driver=s3,url=s3://b/k").path == "s3://b/k");
  CHECK(parsed("driver=qcow2,file.filename=http://h/a").path == "http://h/a");
  CHECK(parsed("driver=http,url=http://h/a,sslverify=on").path == "http://h/a");
  check_refused("driver=qcow2,file.driver=https,file.url=http://h/a", ErrorKind::kUsage,
                "needs file.url=https://...");
  check_refused("driver=https,file.url=https://h/a", ErrorKind::kUsage, "needs url=https://...");
  check_refused("driver=https,url=https://h/a,sslverify=off", ErrorKind::kUnsupported,
                "always verified");
  check_refused("file.driver=ftp,file.url=ftp://h/a", ErrorKind::kUnsupported,
                "file.driver=\"ftp\"");
}

TEST_CASE("image-opts: two commas are one of the value") {
  CHECK(parsed("file.filename=a,,b,driver=raw").path == "a,b");
  CHECK(parsed("file.filename=a,,,driver=raw").path == "a,");
}

TEST_CASE("image-opts: backing.driver and force_size_calc") {
  CHECK(parsed("file.filename=a,backing.driver=raw").open.backing_format == "raw");
  CHECK(parsed("file.filename=a").open.image.vhd_size == ImageOptions::VhdSize::kByCreator);
  CHECK(parsed("file.filename=a,force_size_calc=auto").open.image.vhd_size ==
        ImageOptions::VhdSize::kByCreator);
  CHECK(parsed("file.filename=a,force_size_calc=chs").open.image.vhd_size ==
        ImageOptions::VhdSize::kChs);
  CHECK(parsed("file.filename=a,force_size_calc=current_size").open.image.vhd_size ==
        ImageOptions::VhdSize::kCurrentSize);
  check_refused("file.filename=a,force_size_calc=x", ErrorKind::kUsage, "force_size_calc: \"x\"");
  check_refused("driver=raw,file.filename=a,force_size_calc=chs", ErrorKind::kUsage,
                "--image-opts: force_size_calc belongs to driver=vpc, not raw");
  CHECK(parsed("driver=vhd,file.filename=a,force_size_calc=chs").open.image.vhd_size ==
        ImageOptions::VhdSize::kChs);
}

TEST_CASE("image-opts: keys about qemu's I/O are checked and have no effect") {
  parsed(
      "file.filename=a,read-only=on,cache.direct=off,cache.no-flush=on,discard=unmap,"
      "detect-zeroes=on,file.aio=native,file.discard=off");
  parsed("driver=file,filename=a,aio=threads");
  check_refused("file.filename=a,cache.direct=foo", ErrorKind::kUsage, "cache.direct: \"foo\"");
  check_refused("file.filename=a,discard=foo", ErrorKind::kUsage, "discard: \"foo\"");
  check_refused("file.filename=a,file.aio=foo", ErrorKind::kUsage, "file.aio: \"foo\"");
  check_refused("driver=raw,file.filename=a,aio=threads", ErrorKind::kUnsupported, "key \"aio\"");
}

TEST_CASE("image-opts: force-share=on and locking=off read what is being written") {
  for (const char* text :
       {"file.filename=a,force-share=on", "file.filename=a,file.force-share=true",
        "file.filename=a,file.locking=off", "driver=file,filename=a,locking=off"}) {
    CAPTURE(text);
    CHECK(parsed(text).open.sharing == FileSharing::kAnyWriter);
  }
  for (const char* text :
       {"file.filename=a", "file.filename=a,force-share=off", "file.filename=a,file.locking=auto",
        "file.filename=a,file.locking=on"}) {
    CAPTURE(text);
    CHECK(parsed(text).open.sharing == FileSharing::kNoWriter);
  }
  check_refused("file.filename=a,file.locking=foo", ErrorKind::kUsage, "file.locking: \"foo\"");
  check_refused("file.filename=a,force-share=foo", ErrorKind::kUsage, "force-share: \"foo\"");
  check_refused("file.filename=a,locking=off", ErrorKind::kUnsupported, "key \"locking\"");
}

TEST_CASE("image-opts: the secrets of an image and of its backing file are looked up") {
  const std::vector<SecretFile> secrets = {{.id = "s0", .path = "/top"},
                                           {.id = "s1", .path = "/base"}};
  const auto opts = parse_image_opts(
      "driver=qcow2,file.filename=a,encrypt.format=luks,encrypt.key-secret=s0,"
      "backing.encrypt.key-secret=s1",
      secrets);
  REQUIRE(opts);
  CHECK(opts->open.image.encrypt_format == "luks");
  CHECK(opts->open.image.key->path == "/top");
  CHECK(opts->open.backing.encrypt_format == "");
  CHECK(opts->open.backing.key->path == "/base");
  CHECK_FALSE(parsed("driver=qcow2,file.filename=a").open.image.key);

  for (const char* key : {"encrypt.key-secret", "backing.encrypt.key-secret"}) {
    const auto missing = parse_image_opts(fmt::format("file.filename=a,{}=s2", key), secrets);
    REQUIRE_FALSE(missing);
    CHECK(missing.error().kind == ErrorKind::kUsage);
    CHECK(missing.error().message.find("there is no secret \"s2\"") != std::string::npos);
  }
  check_refused("file.filename=a,encrypt.format=foo", ErrorKind::kUsage, "neither luks nor aes");
  check_refused("driver=raw,file.filename=a,encrypt.key-secret=s0", ErrorKind::kUsage,
                "encrypt.key-secret belongs to driver=qcow2, not raw");
  check_refused("file.filename=a,backing.driver=raw,backing.encrypt.format=luks", ErrorKind::kUsage,
                "belongs to driver=qcow2, not raw");
}

TEST_CASE("image-opts: what could mean other data is refused by name") {
  for (const char* key : {"offset", "size", "backing", "backing.file.filename", "data-file",
                          "file.offset", "file.file.filename", "encrypt.cipher-alg", "filename"}) {
    check_refused(fmt::format("driver=raw,file.filename=a,{}=1", key), ErrorKind::kUnsupported,
                  fmt::format("key \"{}\" is not supported", key));
  }
  check_refused("driver=nbd,file.filename=a", ErrorKind::kUnsupported, "driver=\"nbd\"");
  check_refused("file.driver=nbd,file.filename=a", ErrorKind::kUnsupported, "file.driver=\"nbd\"");
  check_refused("file.filename=nbd:a", ErrorKind::kUnsupported, "has a protocol");
  check_refused("file.filename=json:{}", ErrorKind::kUnsupported, "json:");
  check_refused("file.filename=a,backing.driver=nbd", ErrorKind::kUnsupported, "backing.driver");
}

TEST_CASE("image-opts: a string without a file or without keys is a usage error") {
  check_refused("", ErrorKind::kUsage, "names no file");
  check_refused("driver=raw", ErrorKind::kUsage, "names no file");
  check_refused("driver=raw,file.filename=", ErrorKind::kUsage, "names no file");
  check_refused("a.img", ErrorKind::kUsage, "is not KEY=VALUE");
  check_refused("=a", ErrorKind::kUsage, "is not KEY=VALUE");
}

TEST_CASE("image-opts: an option of the command line, for FILE and each --export") {
  const auto line = parse_command_line(
      {"--image-opts", "-l", "s", "--export", "x=driver=raw,file.filename=b", "file.filename=a"});
  REQUIRE(line);
  REQUIRE(line->options.exports.size() == 2);
  CHECK(line->options.exports[0].path == "a");
  CHECK(line->options.exports[0].open.image.snapshot == "s");
  CHECK(line->options.exports[1].name == "x");
  CHECK(line->options.exports[1].path == "b");
  CHECK(line->options.exports[1].open.format == "raw");
  const auto both = parse_command_line({"--image-opts", "-f", "raw", "file.filename=a"});
  REQUIRE_FALSE(both);
  CHECK(both.error().message.starts_with("--image-opts and -f are mutually exclusive"));
}

TEST_CASE("snapshot: a bare text is an id first, then a name") {
  const std::array<SnapshotLabel, 3> labels = {
      {{.id = "1", .name = "2"}, {.id = "2", .name = "two"}, {.id = "3", .name = "two"}}};
  const auto found = [&](std::string_view text) {
    return find_snapshot(*parse_snapshot_choice(text), labels);
  };
  CHECK(*found("1") == 0);
  CHECK(*found("2") == 1);
  CHECK(*found("snapshot.id=2") == 1);
  CHECK(*found("snapshot.name=2") == 0);
  CHECK(*found("snapshot.name=two,snapshot.id=3") == 2);
  CHECK(found("two").error().kind == ErrorKind::kMalformed);
  CHECK(found("snapshot.name=two").error().kind == ErrorKind::kMalformed);
  for (const char* text : {"4", "", "snapshot.id=two", "snapshot.id=1,snapshot.name=two"}) {
    CHECK(found(text).error().kind == ErrorKind::kNotFound);
  }
}

TEST_CASE("snapshot: commas in names are doubled") {
  CHECK(parse_snapshot_choice("snapshot.name=a,,b,snapshot.id=1")->name == "a,b");
  CHECK(parse_snapshot_choice("a,b")->id_or_name == "a,b");
  CHECK(parse_snapshot_choice("snapshot.id=1,").error().kind == ErrorKind::kUsage);
}

}  // namespace underlay
