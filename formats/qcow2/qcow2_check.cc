#include "formats/qcow2/qcow2_check.h"

#include "formats/qcow2/qcow2_check_metadata.h"
#include "formats/qcow2/qcow2_check_refcounts.h"
#include "formats/qcow2/qcow2_check_tables.h"
#include "formats/qcow2/qcow2_structures.h"

namespace underlay {
namespace {

using Kind = Finding::Kind;

// Where the header's fields lie.
constexpr uint64_t kL1SizeAt = 36;
constexpr uint64_t kRefcountTableAt = 48;

constexpr uint64_t kSectorBytes = 512;

class Qcow2Check {
 public:
  Qcow2Check(const FileToInspect& image, const Qcow2Header& header,
             const Qcow2Extensions& extensions, CheckReport& report, uint64_t window)
      : image_(image),
        file_(*image.source),
        header_(header),
        extensions_(extensions),
        report_(report),
        clusters_(div_round_up(file_.size(), header.cluster_size())),
        // One more: QEMU counts the tail of a table that ends behind the end of the file.
        references_(clusters_ + 1, window) {}

  Result<void> run() {
    open_refcounts();
    open_data_file();
    Qcow2RefcountCheck compared(report_, header_, refcounts(), clusters_);
    std::optional<uint64_t> start = 0;
    for (bool first = true; start; first = false) {
      references_.begin(*start);
      Qcow2CheckPass pass(file_, header_, references_, report_, progress_, first);
      TRY(go_through(pass));
      TRY(compared.compare(pass, references_));
      start = compared.next(references_);
    }
    report_.totals.total =
        div_round_up(header_.size / kSectorBytes * kSectorBytes, header_.cluster_size());
    report_.totals.image_end_offset = compared.end() << header_.cluster_bits;
    return {};
  }

 private:
  Qcow2Refcounts* refcounts() { return refcounts_ ? &*refcounts_ : nullptr; }

  void open_refcounts() {
    if (auto checked = Qcow2Refcounts::check_header(header_); !checked) {
      Finding finding = finding_of(Kind::kCorruption, "refcount-table", checked.error());
      finding.message += "; no refcount is looked at";
      finding.offset = kRefcountTableAt;
      return report_.add(finding);
    }
    refcounts_.emplace(image_.source, image_.caches, header_);
  }

  // Whether it can be opened is the business of who opens the disk.
  void open_data_file() {
    if (!header_.external_data() || extensions_.data_file.empty()) return;
    const auto data = image_.files.open(image_.path, extensions_.data_file);
    if (data) data_file_size_ = data->source->size();
  }

  // Everything that uses the file, in the order in which QEMU counts it where that matters.
  Result<void> go_through(Qcow2CheckPass& pass) {
    const std::vector<Qcow2SnapshotL1> snapshots = check_qcow2_snapshots(pass);
    progress_.total = progress_.done + header_.l1_size;
    for (const Qcow2SnapshotL1& snapshot : snapshots) progress_.total += snapshot.l1.entries;

    pass.use(Qcow2Use::kHeader, 0, header_.cluster_size(), 1, 0);
    Qcow2TableCheck tables(pass, {.data_file_size = data_file_size_, .refcounts = refcounts()});
    TRY(tables.add_active(
        {.offset = header_.l1_table_offset, .entries = header_.l1_size, .disk_size = header_.size},
        kL1SizeAt));
    for (const Qcow2SnapshotL1& snapshot : snapshots) {
      TRY(tables.add_snapshot(snapshot.l1, snapshot.times, snapshot.named_at));
    }
    TRY(tables.finish());
    check_qcow2_luks_header(pass, extensions_.encryption);
    TRY(check_qcow2_bitmaps(pass, extensions_.bitmaps));
    if (!refcounts_) return {};
    pass.use(Qcow2Use::kRefcountTable, header_.refcount_table_offset,
             Qcow2Refcounts::table_bytes(header_), 1, kRefcountTableAt);
    check_qcow2_refcount_blocks(pass, references_, *refcounts_);
    return {};
  }

  const FileToInspect& image_;
  const Source& file_;
  const Qcow2Header& header_;
  const Qcow2Extensions& extensions_;
  CheckReport& report_;
  const uint64_t clusters_;
  Qcow2References references_;
  Qcow2CheckProgress progress_;
  std::optional<Qcow2Refcounts> refcounts_;
  std::optional<uint64_t> data_file_size_;
};

}  // namespace

Result<void> check_qcow2_by(uint64_t window, const FileToInspect& image, CheckReport& report) {
  const auto head = TRY(read_front(*image.source, Qcow2Header::kKnownBytes));
  const Qcow2Header header = TRY(parse_qcow2_header(head));
  const auto first_cluster = TRY(read_front(*image.source, header.cluster_size()));
  const Qcow2Extensions extensions = TRY(parse_qcow2_extensions(header, first_cluster));
  TRY(check_qcow2_supported(header, extensions));
  return Qcow2Check(image, header, extensions, report, window).run();
}

Result<void> check_qcow2(const FileToInspect& image, CheckReport& report) {
  return check_qcow2_by(kQcow2CheckWindow, image, report);
}

}  // namespace underlay
