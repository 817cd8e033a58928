#include "tools/img/image_info.h"

#include <doctest/doctest.h>

#include "io/memory_source.h"
#include "tools/img/info_text.h"

namespace underlay::img {
namespace {

using Json = nlohmann::ordered_json;

ImageInfo plain() {
  ImageInfo info;
  info.filename = "dir/a.img";
  info.format = "raw";
  info.facts.virtual_size = 1 << 20;
  return info;
}

bool has_line(const ImageInfo& info, const std::string& line) {
  return ("\n" + info_text(info)).find("\n" + line + "\n") != std::string::npos;
}

TEST_CASE("info: what does not hold is not told, but that it is clean") {
  CHECK(info_text(plain()) ==
        "image: dir/a.img\nfile format: raw\nvirtual size: 1 MiB (1048576 bytes)\n"
        "disk size: unavailable\n");
  CHECK(info_json(plain()) == Json{{"virtual-size", 1 << 20},
                                   {"filename", "dir/a.img"},
                                   {"format", "raw"},
                                   {"dirty-flag", false},
                                   {"version", 1},
                                   {"names", Json::array()},
                                   {"findings", Json::array()}});
}

TEST_CASE("info: an image that was left dirty, encrypted, with a backing file") {
  ImageInfo info = plain();
  info.actual_size = 2048;
  info.facts.dirty = true;
  info.facts.encrypted = true;
  info.facts.backing_filename = "base.img";
  info.full_backing_filename = "dir/base.img";
  CHECK(has_line(info, "disk size: 2 KiB"));
  CHECK(has_line(info, "cleanly shut down: no"));
  CHECK(has_line(info, "encrypted: yes"));
  CHECK(has_line(info, "backing file: base.img (actual path: dir/base.img)"));
  const Json json = info_json(info);
  CHECK(json["encrypted"] == true);
  CHECK(json["dirty-flag"] == true);
  CHECK(json["full-backing-filename"] == "dir/base.img");
  info.full_backing_filename = "base.img";
  CHECK(has_line(info, "backing file: base.img"));
}

TEST_CASE("info: snapshots as qemu-img lists them; no icount where there is none") {
  ImageInfo info = plain();
  info.facts.snapshots.push_back({.id = "1",
                                  .name = "before",
                                  .vm_state_size = 3 << 20,
                                  .date_sec = 12 * 86400,
                                  .vm_clock_nsec = 3'723'004'000'000 + 360'000'000'000'000,
                                  .icount = 7});
  CHECK(info_text(info).find("1         before              3 MiB 1970-01-1") != std::string::npos);
  CHECK(info_text(info).find("101:02:03.004          7\n") != std::string::npos);
  Json snapshot = info_json(info)["snapshots"][0];
  CHECK(snapshot["vm-clock-sec"] == 363'723);
  CHECK(snapshot["vm-clock-nsec"] == 4'000'000);
  CHECK(snapshot["icount"] == 7);
  info.facts.snapshots[0].icount.reset();
  snapshot = info_json(info)["snapshots"][0];
  CHECK_FALSE(snapshot.contains("icount"));
}

TEST_CASE("info: what is nested stands further to the right") {
  ImageInfo info = plain();
  info.facts.specific = {{"create-type", "a\nb"},
                         {"extents", {{{"virtual-size", 5}}, {{"virtual-size", 6}}}},
                         {"flags", {"x", true, nullptr}}};
  CHECK(has_line(info,
                 "Format specific information:\n    create type: a\\x0ab\n    extents:\n"
                 "        [0]:\n            virtual size: 5\n        [1]:\n"
                 "            virtual size: 6\n    flags:\n        [0]: x\n        [1]: true\n"
                 "        [2]: null"));
}

TEST_CASE("info: what is ours stands behind what is qemu-img's") {
  ImageInfo info = plain();
  info.container = {.filename = "a.ova", .member = "a.img", .compressed = true};
  info.facts.creator = "Some\x1b[2J";
  info.facts.identity = "1234";
  info.facts.names.push_back({.role = "digest", .name = "d", .format = "f", .followed = false});
  info.facts.findings.push_back({.kind = Finding::Kind::kNotice, .code = "odd", .message = "odd"});
  CHECK(has_line(info,
                 "disk size: unavailable\ncontainer: a.ova, member a.img, compressed\n"
                 "creator: Some\\x1b[2J\nidentity: 1234\nFiles that the image names:\n"
                 "    digest: d (f), not followed\nFindings:\n    notice: odd"));
  const Json json = info_json(info);
  CHECK(json["names"][0]["followed"] == false);
  CHECK(json["findings"][0] == Json{{"kind", "notice"}, {"code", "odd"}, {"message", "odd"}});
}

TEST_CASE("info: of an image in memory, by its format's inspector") {
  const std::vector<std::byte> bytes(1000);
  const OpenedFile file{.source = std::make_shared<MemorySource>(bytes), .path = "memory"};
  Caches caches;
  const ImageOptions options;
  const auto info =
      image_info({.file = file, .format = *find_format("raw"), .options = options}, "m", caches);
  REQUIRE(info);
  CHECK(info->facts.virtual_size == 1024);
  REQUIRE(info->facts.findings.size() == 1);
  CHECK(info->facts.findings[0].code == "size-not-in-sectors");
  CHECK_FALSE(info->actual_size);
  CHECK_FALSE(info->container);
  CHECK_FALSE(
      image_info({.file = file, .format = *find_format("qcow2"), .options = options}, "m", caches));
}

}  // namespace
}  // namespace underlay::img
