#include "formats/raw/raw_inspect.h"

#include "formats/inspection/image_facts.h"

namespace underlay {

Result<ImageFacts> describe_raw(const FileToInspect& file) {
  ImageFacts facts;
  facts.virtual_size = file.source->size();
  return facts;
}

// A raw image has no structure.
Result<void> dump_raw(const FileToInspect& file, DumpSink& sink) {
  return sink.begin("guest data", 0, file.source->size());
}

}  // namespace underlay
