#include "formats/container/container.h"

#include <doctest/doctest.h>

#include "formats/open_chain.h"
#include "io/memory_source.h"
#include "io/window_source.h"
#include "tests/support/tar_builder.h"
#include "tests/support/temp_folder.h"
#include "tests/support/vhd_builder.h"

namespace underlay {
namespace {

constexpr const char* kDescriptor = "# Disk DescriptorFile\ncreateType=custom\n";

std::string ovf(std::string_view references, std::string_view disks) {
  return fmt::format(
      "<Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1' xmlns:o='http://schemas.dmtf.org/"
      "ovf/envelope/1'><References>{}</References><DiskSection>{}</DiskSection></Envelope>",
      references, disks);
}

struct Opener {
  Result<OpenedDisk> open(const std::string& path, const std::string& format = "") {
    OpenOptions options;
    options.format = format;
    return open_disk(path, options, confinement, caches);
  }
  std::string write(const std::string& name, const TarBuilder& archive) {
    return folder.write(name, as_text(archive.build()));
  }
  std::string read(const Result<OpenedDisk>& opened, size_t length) {
    std::string text(length, '?');
    REQUIRE(
        opened->disk->read(0, MutableByteSpan(reinterpret_cast<std::byte*>(text.data()), length)));
    return text;
  }

  TempFolder folder;
  Confinement confinement;
  Caches caches;
};

TEST_CASE("window: a part of a source ends where it ends") {
  std::vector<std::byte> bytes(100);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  const auto whole = std::make_shared<const MemorySource>(bytes);
  const WindowSource window(whole, 10, 20, "part");
  std::byte byte{};
  const MutableByteSpan one(&byte, 1);
  REQUIRE(window.read_at(19, one));
  CHECK(byte == std::byte{29});
  CHECK(window.read_at(20, one).error().kind == ErrorKind::kTruncated);
  CHECK(window.read_at(~uint64_t{0}, one).error().kind == ErrorKind::kTruncated);
  CHECK(window.read_cached(19, one) == 1);
  CHECK(window.read_cached(20, one) == 0);
  CHECK(window.place_of(5).source == whole.get());
  CHECK(window.place_of(5).offset == 15);
  const auto within = std::make_shared<const WindowSource>(whole, 10, 20, "part");
  CHECK(WindowSource(within, 3, 4, "part of it").place_of(1).offset == 14);
}

TEST_CASE("tar: what is stored in a member is mapped to the archive, which has a descriptor") {
  Opener opener;
  const auto opened = opener.open(
      opener.write("a.tar", TarBuilder().add("x", "y").add("disk.img", std::string(2048, 'd'))),
      "");
  REQUIRE(opened);
  const Extent extent = opened->disk->map(512, 512, MapFor::kRead).value();
  CHECK(extent.source->fd());
  CHECK(extent.source_offset == 3 * 512 + 512);
  CHECK(opener.read(opened, 2048) == std::string(2048, 'd'));
  CHECK(opened->disk->layers()[0].path == opener.folder.path("a.tar#disk.img"));
  CHECK(opened->disk->check_unchanged());
}

TEST_CASE("tar: -f raw serves the archive as it is, and a member that is named") {
  Opener opener;
  const std::string path =
      opener.write("a.tar", TarBuilder().add("disk.img", std::string(1024, 'd')));
  CHECK(opener.open(path, "raw")->disk->size() == 512 + 1024 + 1024);
  CHECK(opener.open(path + "#disk.img", "raw")->disk->size() == 1024);
  CHECK(opener.open(path + "#other", "raw").error().kind == ErrorKind::kNotFound);
}

TEST_CASE("FILE#MEMBER: a file of that name comes first, other files have no members") {
  Opener opener;
  const std::string path =
      opener.write("a.tar", TarBuilder().add("disk.img", std::string(1024, 'd')));
  opener.folder.write("a.tar#disk.img", std::string(4096, 'f'));
  CHECK(opener.open(path + "#disk.img", "raw")->disk->size() == 4096);
  opener.folder.write("plain", std::string(4096, 'f'));
  const auto plain = opener.open(opener.folder.path("plain#disk.img"), "raw");
  CHECK(plain.error().kind == ErrorKind::kUsage);
  CHECK(opener.open(opener.folder.path("none#disk.img")).error().kind == ErrorKind::kNotFound);
  CHECK_FALSE(split_member_path("#a"));
  CHECK_FALSE(split_member_path("a#"));
  CHECK(split_member_path("a#b#c")->file == "a#b");
}

TEST_CASE("a disk whose first bytes a guest made an archive of is no archive") {
  Opener opener;
  vhd::test::VhdBuilder builder;  // its footer, at the end of the file, speaks for it
  builder.disk_type = 2;
  builder.fixed_data = TarBuilder().add("secret.img", std::string(512, 's')).build();
  builder.current_size = builder.fixed_data.size();
  const std::string path = opener.folder.write("disk.vhd", as_text(builder.build()));
  for (const std::string format : {"", "vpc", "raw"}) {
    const auto opened = opener.open(path, format);
    REQUIRE(opened);
    CHECK(opened->disk->layers()[0].path == path);
    CHECK(opener.read(opened, 10) == "secret.img");
  }
}

TEST_CASE("ova: the descriptor's disk is served, whatever else there is") {
  Opener opener;
  const std::string other(1024, 'o');
  const std::string disk(2048, 'd');
  const auto archive = [&](const std::string& descriptor) {
    return opener.write(
        "a.ova", TarBuilder().add("a.ovf", descriptor).add("other.vmdk", other).add("disk", disk));
  };
  const std::string file = "<File o:id='f' o:href='disk'/>";
  const auto size = [](const Result<OpenedDisk>& opened) {
    return opened ? opened->disk->size() : 0;
  };
  CHECK(size(opener.open(archive(ovf(file, "<Disk o:fileRef='f'/>")))) == 2048);
  CHECK(size(opener.open(archive(ovf(file, "<Disk fileRef='f'/><Disk diskId='empty'/>")))) == 2048);
  CHECK(size(opener.open(archive(ovf(file, "<Disk o:fileRef='f'/><Disk o:fileRef='f'/>")))) ==
        2048);

  const auto refused = [&](const std::string& descriptor) {
    const auto opened = opener.open(archive(descriptor));
    return opened ? "" : opened.error().to_string();
  };
  CHECK(refused(ovf(file, "")).find("names no disk") != std::string::npos);
  CHECK(refused(ovf(file, "<Disk o:fileRef='g'/>")).find("does not list") != std::string::npos);
  CHECK(
      refused(ovf("<File id='f' href='gone'/>", "<Disk fileRef='f'/>")).find("without a member") !=
      std::string::npos);
  CHECK(refused(ovf("<File id='f' href='disk' chunkSize='1'/>", "<Disk fileRef='f'/>"))
            .find("chunks") != std::string::npos);
  CHECK(refused("<Envelope>").find("no XML") != std::string::npos);
  CHECK(refused("<!DOCTYPE a [<!ENTITY b 'b'>]><Envelope/>").find("DTD") != std::string::npos);
  std::string many;
  for (int i = 0; i < 1001; ++i) many += fmt::format("<File id='{}'/>", i);
  CHECK(refused(ovf(many, "")).find("more than 1000") != std::string::npos);
  const std::string both = refused(
      ovf(file + "<File id='o' href='other.vmdk'/>", "<Disk fileRef='f'/><Disk fileRef='o'/>"));
  CHECK(both.find("2 disks (disk, other.vmdk)") != std::string::npos);
  CHECK(both.find("a.ova#disk") != std::string::npos);
}

TEST_CASE("tar: an image names files of its archive alone") {
  Opener opener;
  opener.folder.write("flat", std::string(4096, 'o'));  // beside the archive
  const auto serve = [&](const std::string& name, const std::string& member) {
    const std::string text = kDescriptor + fmt::format("RW 8 FLAT \"{}\" 0\n", name);
    return opener.open(opener.write("a.tar", TarBuilder()
                                                 .add(member, text)
                                                 .add("in/flat", std::string(4096, 'i'))
                                                 .add("top", std::string(4096, 't'))) +
                       "#" + member);
  };
  CHECK(opener.read(serve("flat", "in/disk.vmdk"), 8) == "iiiiiiii");
  CHECK(opener.read(serve("in/flat", "disk.vmdk"), 8) == "iiiiiiii");
  CHECK(opener.read(serve("../top", "in/disk.vmdk"), 8) == "tttttttt");
  CHECK(opener.read(serve("./in//./flat", "disk.vmdk"), 8) == "iiiiiiii");
  for (const std::string name : {"flat", "../flat", "../a.tar", "/etc/passwd"}) {
    CAPTURE(name);
    CHECK_FALSE(serve(name, "disk.vmdk"));
  }
  CHECK_FALSE(serve(opener.folder.path("flat"), "disk.vmdk"));
  CHECK_FALSE(serve("../../flat", "in/disk.vmdk"));
  CHECK_FALSE(serve("disk.vmdk", "disk.vmdk"));  // itself
}

TEST_CASE("tar: two members of one name are neither") {
  Opener opener;
  const std::string path =
      opener.write("a.tar", TarBuilder().add("a", std::string(512, '1')).add("a", ""));
  CHECK_FALSE(opener.open(path + "#a", "raw"));
}

}  // namespace
}  // namespace underlay
