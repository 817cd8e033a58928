#include "io/http/xml_element.h"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace underlay {
namespace {

// XML 1.0, 4.6. The ampersand is resolved last and escaped first: it makes no further ones.
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kEntities{
    {{"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&apos;", "'"}, {"&amp;", "&"}}};

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size()) {
    text.replace(at, what.size(), by);
  }
}

}  // namespace

std::string element_of(std::string_view document, std::string_view name, size_t limit) {
  const std::string start = fmt::format("<{}>", name);
  const size_t begin = document.find(start);
  if (begin == std::string_view::npos) return {};
  document.remove_prefix(begin + start.size());
  const size_t end = document.find('<');
  if (end == std::string_view::npos || end > limit) return {};
  if (!document.substr(end).starts_with(fmt::format("</{}>", name))) return {};
  std::string text(document.substr(0, end));
  for (const auto& [entity, letter] : kEntities) replace_all(text, entity, letter);
  return text;
}

std::string xml_escaped(std::string_view text) {
  std::string escaped(text);
  for (auto entity = kEntities.rbegin(); entity != kEntities.rend(); ++entity) {
    replace_all(escaped, entity->second, entity->first);
  }
  return escaped;
}

}  // namespace underlay
