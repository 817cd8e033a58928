// The fields of a structure whose bytes are in memory, for DumpSink.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "formats/guid.h"
#include "formats/inspection/dump_sink.h"
#include "formats/utf16.h"

namespace underlay {

// Begins the structure, and dumps the fields that it is told of until one fails; done() says how
// that went. `bytes` outlive this.
class StructureDump {
 public:
  // `at`: of the structure's first byte in the file. `order`: of its integers.
  StructureDump(DumpSink& sink, std::string_view name, uint64_t at, ByteSpan bytes, ByteOrder order)
      : sink_(sink),
        at_(at),
        bytes_(bytes),
        order_(order),
        done_(sink.begin(name, at, bytes.size())) {}

  // `at`: of the field in the structure. REQUIRES: the field lies in it.
  template <class T>
  void number(std::string_view name, size_t at, std::string_view meaning = "") {
    value(name, at, sizeof(T), load<T>(at), meaning);
  }
  template <class T>
  T load(size_t at) const {
    return order_ == ByteOrder::kBig ? load_be<T>(bytes_, at) : load_le<T>(bytes_, at);
  }
  // 8-bit text, up to its first NUL.
  void text(std::string_view name, size_t at, size_t length, std::string_view meaning = "");
  void guid(std::string_view name, size_t at, std::string_view meaning = "");
  void value(std::string_view name, size_t at, size_t length, const nlohmann::ordered_json& value,
             std::string_view meaning = "") {
    if (done_) done_ = sink_.field(name, at_ + at, length, value, meaning);
  }

  Result<void> done() const { return done_; }

 private:
  DumpSink& sink_;
  uint64_t at_;
  ByteSpan bytes_;
  ByteOrder order_;
  Result<void> done_;
};

// "[N]", as entry N of a table is called.
std::string entry_name(uint64_t number);

}  // namespace underlay
