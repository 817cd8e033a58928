// What is wrong, or smells, in what a qcow2 image says of itself; its clusters are another matter
// (qcow2_check.h).
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "formats/inspection/finding.h"
#include "formats/qcow2/qcow2_layout.h"
#include "io/source.h"

namespace underlay {

using Findings = std::vector<Finding>;

// The name of a feature: of those that are known here ours, of others the image's. "" for neither.
std::string_view qcow2_feature_label(ByteSpan names, Qcow2FeatureKind kind, unsigned bit);

// The header's fields against qcow2_header_rules(). False when one of them broke that all further
// looking depends on.
bool find_in_qcow2_header(const Qcow2Header& header, Findings& findings);

// Feature bits, those that nobody knows by the names that the image gives them, and what they say
// of the image's state.
void find_in_qcow2_features(const Qcow2Header& header, const Qcow2Extensions& extensions,
                            Findings& findings);

// The names of other files, and whether they fit the features. `backing`: nullopt for none.
void find_in_qcow2_names(const Qcow2Header& header, const Qcow2Extensions& extensions,
                         std::optional<std::string_view> backing, Findings& findings);

// Do two entries of the active L1 table, as far as the disk goes, name one L2 table? Then a small
// file has a large disk, all of whose parts are the same. Fails when the table cannot be read.
// REQUIRES: the table lies in the file.
Result<void> find_in_qcow2_l1_table(const Source& file, const Qcow2Header& header,
                                    Findings& findings);

}  // namespace underlay
