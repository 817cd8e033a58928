// What info tells of one image.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "formats/inspection/image_facts.h"
#include "formats/open_chain.h"

namespace underlay::img {

// The file that an image is in, when it is no file itself.
struct ImageContainer {
  std::string filename;
  std::string member{};     // of an archive, "" for none
  bool compressed = false;  // the file, as a whole
};

struct ImageInfo {
  std::string filename;                 // as the operator knows it
  std::string_view format;              // Format::name
  std::optional<uint64_t> actual_size;  // bytes that its file takes, nullopt for what is no file
  std::optional<ImageContainer> container;
  std::string full_backing_filename;  // where the backing file's name leads; nobody looked there
  ImageFacts facts;
};

// Looks at the image's own file. `filename`: how it is called in what is told.
Result<ImageInfo> image_info(const ChainImage& image, std::string filename, Caches& caches);

// qemu-img's fields by its names, and behind them ours.
nlohmann::ordered_json info_json(const ImageInfo& info);

}  // namespace underlay::img
