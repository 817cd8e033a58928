// The encryption of a qcow2 image: refused, or unlocked with the operator's secret.
#pragma once

#include <memory>
#include <vector>

#include "formats/encryption/sector_cipher.h"
#include "formats/file_range.h"
#include "formats/qcow2/qcow2_layout.h"
#include "formats/reader.h"

namespace underlay {

// Format::set_option: encrypt.format and encrypt.key-secret.
Result<bool> set_qcow2_option(ImageOptions& options, std::string_view key, std::string_view value);

// Where the LUKS header with its key material lies. `pointer`: what the header extension holds.
// Fails when it cannot lie there, whatever the file's size.
Result<FileRange> parse_qcow2_luks_pointer(const Qcow2Header& header, ByteSpan pointer);

// Its bytes.
Result<std::vector<std::byte>> read_qcow2_luks_header(const Source& file, const Qcow2Header& header,
                                                      ByteSpan pointer);

// What decrypts the image's clusters, by their offset in the file; null when they are not
// encrypted. Fails when the image and what the operator said of it do not fit each other. Reads the
// secret, and forgets it again.
Result<std::unique_ptr<const SectorCipher>> unlock_qcow2(const ImageToOpen& image,
                                                         const Qcow2Header& header,
                                                         const Qcow2Extensions& extensions);

}  // namespace underlay
