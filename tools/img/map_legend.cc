#include "tools/img/map_legend.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace underlay::img {
namespace {

// Okabe and Ito's colours, which people of all kinds of colour vision tell apart.
constexpr std::array kHues = {colour(0x0072b2), colour(0xe69f00), colour(0x009e73),
                              colour(0xcc79a7), colour(0xd55e00), colour(0x56b4e9)};
constexpr Colour kOthers = colour(0x6e6e6e);
constexpr Colour kNowhere = colour(0xf3f3f3);
constexpr double kZeroTint = 0.16;

// The layers that have a colour of their own: the top one, and those that store most.
std::vector<bool> choose_coloured(size_t layers, const MapBytes& totals) {
  std::vector<uint64_t> stored(layers);
  for (const auto& [what, bytes] : totals) {
    if (what.layer < layers && what.kind != MapClass::Kind::kZero) stored[what.layer] += bytes;
  }
  std::vector<size_t> order(layers);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin() + 1, order.end(),
                   [&](size_t a, size_t b) { return stored[a] > stored[b]; });
  std::vector<bool> coloured(layers);
  for (size_t i = 0; i < std::min(layers, kHues.size()); ++i) coloured[order[i]] = true;
  return coloured;
}

}  // namespace

std::string name_in_picture(const Layer& layer) {
  std::string name = layer.path;
  // The last part of a URI says little.
  if (name.find("://") == std::string::npos) name = name.substr(name.rfind('/') + 1);
  return fmt::format("{} ({})", printable(name), layer.format);
}

MapLegend::MapLegend(const std::vector<Layer>& layers, const MapBytes& totals)
    : group_of_layer_(layers.size()) {
  const std::vector<bool> coloured = choose_coloured(layers.size(), totals);
  for (size_t i = 0; i < layers.size(); ++i) {
    if (!coloured[i]) continue;
    group_of_layer_[i] = static_cast<uint32_t>(groups_.size());
    groups_.push_back({.name = name_in_picture(layers[i]),
                       .depth = std::to_string(i),
                       .of = kHues[groups_.size()]});
  }
  const size_t others = layers.size() - groups_.size();
  if (others > 0) {
    for (size_t i = 0; i < layers.size(); ++i) {
      if (!coloured[i]) group_of_layer_[i] = static_cast<uint32_t>(groups_.size());
    }
    groups_.push_back(
        {.name = fmt::format("{} other image{}", others, others == 1 ? "" : "s"), .of = kOthers});
  }
  nowhere_ = static_cast<uint32_t>(groups_.size());
  groups_.push_back({.name = "in no image", .of = kNowhere});
  for (const auto& [what, bytes] : totals) {
    groups_[group_of(what.layer)].bytes[static_cast<size_t>(what.kind)] += bytes;
  }
  if (groups_.back().bytes == MapGroup{}.bytes) groups_.pop_back();
}

uint32_t MapLegend::group_of(uint32_t layer) const {
  return layer == MapClass::kNowhere ? nowhere_ : group_of_layer_[layer];
}

MapBytes MapLegend::grouped(const MapBytes& bytes) const {
  MapBytes sums;
  for (const auto& [what, count] : bytes) {
    sums[{.layer = group_of(what.layer), .kind = what.kind}] += count;
  }
  return sums;
}

void paint(Canvas& canvas, const MapGroup& group, MapClass::Kind kind) {
  switch (kind) {
    case MapClass::Kind::kData:
      return canvas.fill(group.of);
    case MapClass::Kind::kCompressed:
      return canvas.fill_striped(group.of);
    case MapClass::Kind::kZero:
      return canvas.fill(group.of == kNowhere ? kNowhere : tint(group.of, kZeroTint));
  }
}

}  // namespace underlay::img
