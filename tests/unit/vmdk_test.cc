#include "formats/vmdk/vmdk.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>

#include "formats/disk.h"
#include "formats/vmdk/vmdk_layout.h"
#include "tests/support/vmdk_builder.h"
#include "tests/support/vmdk_opened.h"

namespace underlay::vmdk_test {
namespace {

using Kind = Extent::Kind;

TEST_CASE("vmdk: sparse and stream-optimized files read as their content") {
  const auto content = vmdk_content(3 << 20, 1, 1 << 20);
  for (const uint64_t grain_size : {8u, 16u, 128u, 256u, 4096u}) {
    for (const int kind : {0, 1, 2, 3}) {
      CAPTURE(grain_size);
      CAPTURE(kind);
      VmdkSpec spec{.grain_size = grain_size, .zeroed = kind == 1};
      spec.compressed = kind >= 2;
      spec.footer = kind == 3;
      CHECK(read_all(monolithic(content, spec)).value_or(Bytes{}) == content);
    }
  }
}

TEST_CASE("vmdk: a disk that ends within a grain") {
  const auto content = vmdk_content((1 << 20) + 512, 2, 2 << 20);
  for (const bool compressed : {false, true}) {
    const VmdkSpec spec{.grain_size = 128, .compressed = compressed};
    BuiltVmdk image = monolithic(content, spec);
    // Of the last grain, only the sector that the guest can see needs to be there.
    if (!compressed) image.bytes.resize(image.bytes.size() - 127 * 512);
    CHECK(read_all(image).value_or(Bytes{}) == content);
    if (!compressed) {
      image.bytes.resize(image.bytes.size() - 1);
      CHECK_FALSE(read_all(image));
    }
  }
}

TEST_CASE("vmdk: map() merges grains that follow each other, and absent ones over tables") {
  auto content = vmdk_content(16 << 20, 3, 0);
  for (const size_t grain : {0u, 1u, 2u, 5u, 6u, 4095u}) content[grain * 4096] = std::byte{7};
  BuiltVmdk image = monolithic(content, {});
  Opened opened(in_memory(image.bytes));
  REQUIRE(opened.result);
  const Reader& reader = opened.reader();
  const auto map = [&](uint64_t offset) {
    return reader.map(offset, reader.size() - offset, MapFor::kRead).value();
  };
  CHECK(map(100).kind == Kind::kData);
  CHECK(map(100).length == 3 * 4096 - 100);
  CHECK(map(100).source_offset == uint64_t{image.entry(0)} * 512 + 100);
  CHECK(map(3 * 4096).kind == Kind::kParent);
  CHECK(map(3 * 4096).length == 2 * 4096);
  // The rest of the first table, then six tables of 2 MiB that do not exist.
  CHECK(map(7 * 4096).length == (2 << 20) - 7 * 4096);
  CHECK(map(2 << 20).kind == Kind::kParent);
  CHECK(map((2 << 20) + 5).length == (12 << 20) - 5);
  CHECK(reader.map(2 << 20, 512, MapFor::kRead)->length == 512);

  image.set_entry(1, image.entry(1) + 8);  // no longer behind grain 0
  const Opened gap(in_memory(image.bytes));
  CHECK(gap.reader().map(0, 1 << 20, MapFor::kRead)->length == 4096);
}

TEST_CASE("vmdk: entry 1 is zeros, and hides the parent, with the flag and without") {
  const auto content = vmdk_content(1 << 20, 4, 1 << 20);
  for (const bool flag : {true, false}) {
    BuiltVmdk image = monolithic(content, VmdkSpec{.zeroed = flag});
    image.set_entry(0, 1);
    image.set_entry(1, 1);
    const Opened opened(in_memory(image.bytes));
    const auto extent = opened.reader().map(0, 1 << 20, MapFor::kRead);
    REQUIRE(extent);
    CHECK(extent->kind == Kind::kZero);
    CHECK(extent->length == 2 * 4096);
  }
}

TEST_CASE("vmdk: absent and zeroed grains are not one run") {
  BuiltVmdk image = monolithic(vmdk_content(1 << 20, 4, 1 << 20), {});
  image.set_entry(0, 0);
  image.set_entry(1, 1);
  image.set_entry(2, 0);
  const Opened opened(in_memory(image.bytes));
  for (const uint64_t grain : {0u, 1u, 2u}) {
    const auto extent = opened.reader().map(grain * 4096, 1 << 19, MapFor::kRead);
    REQUIRE(extent);
    CHECK(extent->kind == (grain == 1 ? Kind::kZero : Kind::kParent));
    CHECK(extent->length == (grain == 2 ? 2 * 4096 : 4096));  // content has zeros in grain 3
  }
}

TEST_CASE("vmdk: kReadNow answers from memory only") {
  const Opened opened(in_memory(monolithic(vmdk_content(1 << 20, 5, 1 << 20), {}).bytes));
  const auto first = opened.reader().map(0, 4096, MapFor::kReadNow);
  REQUIRE_FALSE(first);
  CHECK(first.error().kind == ErrorKind::kWouldBlock);
  REQUIRE(opened.reader().map(0, 4096, MapFor::kRead));
  CHECK(opened.reader().map(0, 4096, MapFor::kReadNow));
}

// A file that says which one it is.
class FileLike final : public Source {
 public:
  explicit FileLike(std::shared_ptr<const Source> inner) : inner_(std::move(inner)) {}
  const std::string& name() const override { return inner_->name(); }
  uint64_t size() const override { return inner_->size(); }
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override {
    return inner_->read_at(offset, out);
  }
  std::optional<FileIdentity> identity() const override {
    return FileIdentity{.device = 1, .inode = 2};
  }

 private:
  std::shared_ptr<const Source> inner_;
};

struct Mixed {
  std::vector<std::byte> a = vmdk_content((1 << 20) + 1536, 6, 1 << 30);
  std::vector<std::byte> b = vmdk_content(1 << 20, 7, 1 << 30);
  std::vector<std::byte> c = vmdk_content((1 << 20) + 512, 8, 1 << 30);
  FilesInMemory files;
  std::vector<std::string> lines;

  Mixed() {
    files.files["a"] = in_memory(build_vmdk(a, VmdkSpec{.grain_size = 128}).bytes);
    auto shifted = vmdk_content(512 * 3, 9, 512 * 3);
    shifted.insert(shifted.end(), b.begin(), b.end());
    files.files["b"] = in_memory(shifted);
    VmdkSpec stream{.grain_size = 16, .compressed = true};
    files.files["c"] = in_memory(build_vmdk(c, stream).bytes);
    lines = {fmt::format("RW {} SPARSE \"a\"", a.size() / 512), "RW 5 ZERO",
             fmt::format("RDONLY {} FLAT \"b\" 3", b.size() / 512),
             fmt::format("RW {} SPARSE \"c\"", c.size() / 512)};
  }
  Bytes whole() const {
    Bytes all = a;
    all.resize(all.size() + 5 * 512);
    all.insert(all.end(), b.begin(), b.end());
    all.insert(all.end(), c.begin(), c.end());
    return all;
  }
  std::shared_ptr<const Source> descriptor() const { return in_memory(vmdk_text("custom", lines)); }
};

TEST_CASE("vmdk: extents of all kinds follow each other") {
  const Mixed mixed;
  const Opened opened(mixed.descriptor(), mixed.files);
  REQUIRE(opened.result);
  CHECK(opened.reader().size() == mixed.whole().size());
  CHECK(read_all(opened).value_or(Bytes{}) == mixed.whole());
  CHECK(opened.reader().sources().size() == 4);
}

TEST_CASE("vmdk: a NOACCESS extent fails with EIO, and is no zeros") {
  Mixed mixed;
  mixed.lines.insert(mixed.lines.begin() + 1, "NOACCESS 4 FLAT \"is never opened\" 0");
  const Opened opened(mixed.descriptor(), mixed.files);
  REQUIRE(opened.result);
  const Reader& reader = opened.reader();
  const auto before = reader.map(mixed.a.size() - 512, 1024, MapFor::kRead);
  REQUIRE(before);
  CHECK(before->length == 512);
  for (const uint64_t sector : {0u, 3u}) {
    const auto extent = reader.map(mixed.a.size() + sector * 512, 512, MapFor::kRead);
    REQUIRE_FALSE(extent);
    CHECK(extent.error().sys_errno == EIO);
  }
  const auto behind = reader.map(mixed.a.size() + 4 * 512, 512, MapFor::kRead);
  REQUIRE(behind);
  CHECK(behind->kind == Kind::kZero);
}

TEST_CASE("vmdk: a file shorter than its extent is refused when the image is opened") {
  const auto refused = [](std::string line) {
    FilesInMemory files;
    files.files["f"] = in_memory(std::vector<std::byte>(8 * 512));
    const Opened opened(in_memory(vmdk_text("custom", {std::move(line)})), files);
    return opened.result ? ErrorKind::kUsage : opened.result.error().kind;
  };
  CHECK(refused("RW 9 FLAT \"f\" 0") == ErrorKind::kTruncated);
  CHECK(refused("RW 8 FLAT \"f\" 1") == ErrorKind::kTruncated);
  CHECK(refused("RW 1 FLAT \"f\" 8") == ErrorKind::kTruncated);
  CHECK(refused("RW 9 VMFS \"f\"") == ErrorKind::kTruncated);
  CHECK(refused("RW 8 VMFS \"no such file\"") == ErrorKind::kNotFound);
  CHECK(refused("RW 7 FLAT \"f\" 1") == ErrorKind::kUsage);  // is good
}

TEST_CASE("vmdk: the line's size rules; a sparse file with less capacity is refused") {
  const auto content = vmdk_content(1 << 20, 10, 1 << 20);
  FilesInMemory files;
  files.files["s"] = in_memory(build_vmdk(content, {}).bytes);
  const Opened less(in_memory(vmdk_text("custom", {"RW 2047 SPARSE \"s\""})), files);
  REQUIRE(less.result);
  CHECK(read_all(less).value_or(Bytes{}) == Bytes(content.begin(), content.end() - 512));
  const Opened more(in_memory(vmdk_text("custom", {"RW 2049 SPARSE \"s\""})), files);
  CHECK_FALSE(more.result);
}

TEST_CASE("vmdk: an image that names itself as its extent is refused") {
  for (const char* line : {"RW 8 SPARSE \"self\"", "RW 1 FLAT \"self\" 0"}) {
    FilesInMemory files;
    const auto self = in_memory(vmdk_text("custom", {line}) + std::string(600, '#') + '\n');
    files.files["self"] = self;
    const Opened opened(self, files);
    REQUIRE_FALSE(opened.result);
    CHECK(opened.result.error().message.find("names itself") != std::string::npos);

    // The same file, opened a second time.
    files.files["self"] = std::make_shared<FileLike>(self);
    const Opened again(std::make_shared<FileLike>(self), files);
    REQUIRE_FALSE(again.result);
    CHECK(again.result.error().message.find("names itself") != std::string::npos);
  }
}

TEST_CASE("vmdk: extents that share bytes of a file are refused") {
  FilesInMemory files;
  files.files["flat"] = std::make_shared<FileLike>(in_memory(Bytes(16 * 512)));
  files.files["same flat"] = std::make_shared<FileLike>(in_memory(Bytes(16 * 512)));
  const BuiltVmdk sparse = build_vmdk(vmdk_content(8 * 512, 1, 8 * 512), {});
  files.files["sparse"] = in_memory(sparse.bytes);
  const auto opens = [&](std::vector<std::string> lines) {
    const Opened opened(in_memory(vmdk_text("custom", lines)), files);
    if (!opened.result) {
      CHECK(opened.result.error().message.find("overlaps the one of descriptor line 4") !=
            std::string::npos);
    }
    return opened.result.has_value();
  };
  CHECK(opens({"RW 8 FLAT \"flat\" 8", "RW 8 FLAT \"flat\" 0"}));
  CHECK_FALSE(opens({"RW 8 FLAT \"flat\" 0", "RW 8 FLAT \"flat\" 7"}));
  CHECK_FALSE(opens({"RW 8 FLAT \"flat\" 0", "RW 8 FLAT \"same flat\" 7"}));
  CHECK_FALSE(opens({"RW 8 SPARSE \"sparse\"", "RW 8 SPARSE \"sparse\""}));
  CHECK_FALSE(opens({"RW 1 SPARSE \"sparse\"", "RW 1 FLAT \"sparse\" 3"}));
}

TEST_CASE("vmdk: an extent is found by its converted name, else by the name as written") {
  const Bytes converted(512, std::byte{1});
  const Bytes written(512, std::byte{2});
  const auto read = [&](const FilesInMemory& files) {
    const auto text = vmdk_text("custom", {"encoding=windows-1252", "RW 1 FLAT \"\xe4\" 0"});
    return read_all(Opened(in_memory(text), files));
  };
  FilesInMemory files;
  CHECK_FALSE(read(files));
  files.files["\xe4"] = in_memory(written);
  CHECK(read(files).value_or(Bytes{}) == written);
  files.files["\xc3\xa4"] = in_memory(converted);
  CHECK(read(files).value_or(Bytes{}) == converted);
}

TEST_CASE("vmdk: the parent is named, with its CID, in ways that may hold where the image is") {
  const auto link = [](std::string_view hint) {
    const std::string keys =
        fmt::format("CID=0000ABCD\nparentCID=12\nparentFileNameHint=\"{}\"", hint);
    const Opened opened(in_memory(vmdk_text("custom", {keys, "RW 8 ZERO"})));
    REQUIRE(opened.result);
    CHECK(opened.reader().identity() == "0000abcd");
    return opened.reader().parent().value();
  };
  using Names = std::vector<std::string>;
  CHECK(link("base.vmdk").names == Names{"base.vmdk"});
  CHECK(link("base.vmdk").identity == "00000012");
  CHECK(link("base.vmdk").format == "vmdk");
  CHECK(link("../x/base.vmdk").names == Names{"../x/base.vmdk"});
  CHECK(link("..\\x\\b").names == Names{"..\\x\\b", "../x/b"});
  CHECK(link("C:\\x\\b").names == Names{"C:\\x\\b", "b"});
  CHECK(link("/vmfs/x/b").names == Names{"/vmfs/x/b", "b"});
  CHECK(link("/vmfs/x/").names == Names{"/vmfs/x/"});

  const Opened encoded(
      in_memory(vmdk_text("custom", {"encoding=Shift_JIS", "parentCID=1",
                                     "parentFileNameHint=\"C:\\x\\\x95\x5c\"", "RW 8 ZERO"})));
  CHECK(encoded.reader().parent()->names ==
        Names{"C:\\x\\\xe8\xa1\xa8", "\xe8\xa1\xa8", "C:\\x\\\x95\x5c"});

  const Opened alone(in_memory(vmdk_text("custom", {"RW 8 ZERO"})));
  CHECK_FALSE(alone.reader().parent());
  CHECK(alone.reader().identity().empty());
}

TEST_CASE("vmdk: an unclean shutdown is warned of") {
  BuiltVmdk image = monolithic(vmdk_content(1 << 20, 11, 1 << 20), {});
  CHECK(Opened(in_memory(image.bytes)).warnings.empty());
  image.bytes[72] = std::byte{1};
  const Opened opened(in_memory(image.bytes));
  REQUIRE(opened.result);
  CHECK(opened.warnings.size() == 1);
}

TEST_CASE("vmdk: what is no image of its own is refused") {
  const auto content = vmdk_content(1 << 20, 12, 1 << 20);
  const auto refused = [](std::shared_ptr<const Source> source, std::string_view why) {
    const Opened opened(std::move(source));
    REQUIRE_FALSE(opened.result);
    CHECK(opened.result.error().message.find(why) != std::string::npos);
  };
  refused(in_memory(build_vmdk(content, {}).bytes), "without a descriptor");
  VmdkSpec spec;
  spec.descriptor = std::string(20 * 512, '\0');
  refused(in_memory(build_vmdk(content, spec).bytes), "without a descriptor");
  spec.descriptor = vmdk_text("monolithicSparse", {"RW 8 SPARSE \"a\"", "RW 8 SPARSE \"b\""});
  refused(in_memory(build_vmdk(content, spec).bytes), "2 extents");
  spec.descriptor = vmdk_text("monolithicSparse", {"RW 8 FLAT \"a\" 0"});
  refused(in_memory(build_vmdk(content, spec).bytes), "SPARSE");
  refused(in_memory(std::string(2 << 20, 'x')), "is no vmdk image");
  refused(in_memory(std::string()), "createType");
}

TEST_CASE("vmdk: a file with signs of the format is never taken for raw") {
  const auto probe = [](ByteSpan bytes) {
    return probe_vmdk(ProbeInput{.head = bytes, .tail = {}, .size = bytes.size()}).verdict;
  };
  const auto probe_text = [&](std::string_view text) { return probe(as_bytes(text)); };
  auto bytes = monolithic(vmdk_content(1 << 20, 13, 1 << 20), {}).bytes;
  CHECK(probe(bytes) == ProbeVerdict::kYes);
  CHECK(probe(ByteSpan(bytes).first(100)) == ProbeVerdict::kDamaged);
  bytes[0] = std::byte{'k'};
  CHECK(probe(bytes) == ProbeVerdict::kDamaged);
  bytes[1] = std::byte{'d'};
  CHECK(probe(bytes) == ProbeVerdict::kNo);
  bytes[0] = std::byte{'K'};
  bytes[1] = std::byte{'D'};
  bytes[4] = std::byte{9};
  CHECK(probe(bytes) == ProbeVerdict::kDamaged);
  CHECK(probe_text("# Disk DescriptorFile\n") == ProbeVerdict::kYes);
  CHECK(probe_text("createType=\"vmfs\"\n") == ProbeVerdict::kDamaged);
  CHECK(probe_text("COWD") == ProbeVerdict::kDamaged);
  CHECK(probe_text(std::string_view("\xbe\xba\xfe\xca\0\0\0\0", 8)) == ProbeVerdict::kDamaged);
  CHECK(probe_text("\xca\xfe\xba\xbe") == ProbeVerdict::kNo);
  CHECK(probe_text("") == ProbeVerdict::kNo);
}

}  // namespace
}  // namespace underlay::vmdk_test
