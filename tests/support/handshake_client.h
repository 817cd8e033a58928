// The client's side of a handshake in memory: says bytes, in pieces of any length, and parses what
// comes back.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "server/handshake.h"

namespace underlay {

struct OptionAnswer {
  nbd::Option option{};
  nbd::OptionReply type{};
  std::string payload;
};

class HandshakeClient {
 public:
  using Need = Handshake::Need;

  explicit HandshakeClient(HandshakeOffer offer = {}, size_t piece = SIZE_MAX)
      : handshake(offer), piece_(piece) {}

  // A client after the greeting.
  static HandshakeClient ready(HandshakeOffer offer = {}) {
    HandshakeClient client(offer);
    client.say_flags(nbd::kClientFixedNewstyle | nbd::kClientNoZeroes);
    return client;
  }

  // Says all bytes; the server's needs are met from `exports`. What is left once the server listens
  // no more stays in `unheard`.
  void say(ByteSpan bytes) {
    while (!bytes.empty() && handshake.need() == Need::kInput) {
      const ByteSpan part = bytes.first(std::min(piece_, bytes.size()));
      const size_t used = handshake.feed(part, heard);
      REQUIRE(used <= part.size());
      REQUIRE((used == part.size() || handshake.need() != Need::kInput));
      bytes = bytes.subspan(used);
      answer_need();
    }
    unheard = std::string(as_text(bytes));
  }
  void say_flags(uint32_t flags) {
    WireBuffer out;
    out.put<uint32_t>(flags);
    say(out.bytes());
  }
  void say_option(nbd::Option option, std::string_view data = {}) {
    say_header(option, static_cast<uint32_t>(data.size()));
    say(as_bytes(data));
  }
  // `length`: of the data that is said to follow.
  void say_header(nbd::Option option, uint32_t length) {
    WireBuffer out;
    out.put<uint64_t>(nbd::kOptionMagic);
    out.put<uint32_t>(static_cast<uint32_t>(option));
    out.put<uint32_t>(length);
    say(out.bytes());
  }

  // All answers since the last call.
  std::vector<OptionAnswer> answers() {
    ByteReader reader(heard.bytes());
    std::vector<OptionAnswer> parsed;
    while (reader.remaining() > 0) {
      REQUIRE(reader.be<uint64_t>() == nbd::kOptionReplyMagic);
      OptionAnswer answer;
      answer.option = static_cast<nbd::Option>(reader.be<uint32_t>());
      answer.type = static_cast<nbd::OptionReply>(reader.be<uint32_t>());
      answer.payload = as_text(reader.bytes(reader.be<uint32_t>()));
      REQUIRE(reader.ok());
      parsed.push_back(std::move(answer));
    }
    heard.clear();
    return parsed;
  }
  // The type of the only answer to an option.
  nbd::OptionReply result_of(nbd::Option option, std::string_view data = {}) {
    say_option(option, data);
    const auto all = answers();
    REQUIRE(all.size() == 1);
    CHECK(all[0].option == option);
    return all[0].type;
  }

  Handshake handshake;
  WireBuffer heard;
  std::string unheard;
  std::map<std::string, ExportDescription> exports = {
      {"", {.name = "", .description = "", .size = 1 << 20}},
      {"disk", {.name = "disk", .description = "a disk", .size = 4096}}};
  std::string broken;  // this export exists, but cannot be served

 private:
  void answer_need() {
    if (handshake.need() == Need::kExportList) {
      std::vector<ExportDescription> all;
      for (const auto& [name, described] : exports) all.push_back(described);
      handshake.exports_listed(all, heard);
    } else if (handshake.need() == Need::kExport) {
      const auto found = exports.find(handshake.wanted_export());
      if (found != exports.end()) return handshake.export_found(found->second, heard);
      handshake.export_missing(broken.empty() || handshake.wanted_export() != broken, heard);
    }
  }

  size_t piece_;
};

// The data of kInfo and kGo. `infos` as 16-bit numbers.
inline std::string info_data(std::string_view name, const std::vector<uint16_t>& infos = {}) {
  WireBuffer out;
  out.put<uint32_t>(static_cast<uint32_t>(name.size()));
  out.put_text(name);
  out.put<uint16_t>(static_cast<uint16_t>(infos.size()));
  for (const uint16_t info : infos) out.put<uint16_t>(info);
  return std::string(as_text(out.bytes()));
}

// The data of kListMetaContext and kSetMetaContext.
inline std::string meta_data(std::string_view name, const std::vector<std::string>& queries) {
  WireBuffer out;
  out.put<uint32_t>(static_cast<uint32_t>(name.size()));
  out.put_text(name);
  out.put<uint32_t>(static_cast<uint32_t>(queries.size()));
  for (const std::string& query : queries) {
    out.put<uint32_t>(static_cast<uint32_t>(query.size()));
    out.put_text(query);
  }
  return std::string(as_text(out.bytes()));
}

}  // namespace underlay
