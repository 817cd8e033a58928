// The rules that the bytes of an image break. Readers refuse the image with the first defect, and
// only warn with a remark; people who look into it are told all of them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/error.h"

namespace underlay {

struct Defect {
  std::string_view code;  // names the rule for machines, in kebab case; a literal
  Error error;
};

class Defects {
 public:
  void add(std::string_view code, Failure failure) {
    all_.push_back({.code = code, .error = std::move(failure.value())});
  }
  void add(Defects more) {
    for (Defect& defect : more.all_) all_.push_back(std::move(defect));
  }
  bool empty() const { return all_.empty(); }
  auto begin() const { return all_.begin(); }
  auto end() const { return all_.end(); }

  // Fails as the first one, if there is any.
  Result<void> refusal() const {
    if (all_.empty()) return {};
    return Failure(all_.front().error);
  }

 private:
  std::vector<Defect> all_;
};

// What is wrong with an image, but does not matter: there is a copy, or another way.
struct Remark {
  std::string_view code;  // as Defect's
  std::string text;
  bool is_damage = false;  // a structure is not as it was written
};
using Remarks = std::vector<Remark>;

inline void add_remarks(Remarks& remarks, std::string_view code, std::vector<std::string> texts,
                        bool is_damage = false) {
  for (std::string& text : texts) {
    remarks.push_back({.code = code, .text = std::move(text), .is_damage = is_damage});
  }
}
inline void add_texts(std::vector<std::string>& texts, const Remarks& remarks) {
  for (const Remark& remark : remarks) texts.push_back(remark.text);
}

}  // namespace underlay
