// What a format knows to tell about its images beyond their bytes, for people who look into them.
// The server has no use for it: it is not in Format (format_table.h), so that a program that only
// serves does not contain it.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "formats/block_cache.h"
#include "formats/inspection/check_report.h"
#include "formats/inspection/dump_sink.h"
#include "formats/reader.h"
#include "io/confined_open.h"
#include "io/source.h"

namespace underlay {

struct FileToInspect {
  std::shared_ptr<const Source> source;  // the image, out of its container
  std::string path;                      // for messages, and where names in the image start
  const NamedFiles& files;               // of which describe() and dump() open none
  Caches& caches;
  const ImageOptions& options;
};

// The whole of these is in image_facts.h and second_opinion.h: JSON is much to compile.
struct ImageFacts;
struct SecondOpinion;
class Disk;

struct Inspector {
  std::string_view format;  // Format::name

  // Parses what is needed to tell what the image is and nothing else; opens no other file, needs no
  // secret. As far as the image can be understood: what this program does not serve (unknown
  // features, encryption, versions) is told as a finding, not refused. Fails only when it is none
  // of this format or its header cannot be read.
  Result<ImageFacts> (*describe)(const FileToInspect&) = nullptr;

  // Looks at every structure: bounds, overlaps, reference counts, checksums, copies that disagree.
  // Goes on behind what it finds, as far as that makes sense. Never writes. Memory within a named
  // budget, however large the image. Null: the format has nothing to check. Fails when nothing
  // could be looked at, or the operator broke off. Parents are not its business.
  Result<void> (*check)(const FileToInspect&, CheckReport&) = nullptr;

  // Header and tables, field by field, also of an image that is damaged, as far as that goes.
  Result<void> (*dump)(const FileToInspect&, DumpSink&) = nullptr;

  // What a library makes of the disk that `own` readers have open, whose top image has this format.
  // Fails when it has nothing to say: the error is the reason. Null when none reads this format.
  Result<SecondOpinion> (*second_opinion)(const std::shared_ptr<const Disk>& own) = nullptr;
};

// REQUIRES: `format` is a name of format_table.h.
const Inspector& inspector_of(std::string_view format);

}  // namespace underlay
