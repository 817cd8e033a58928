// The encryption of a qcow2 image: refused, or unlocked with the operator's secret.
#pragma once

#include <memory>

#include "formats/qcow2_layout.h"
#include "formats/reader.h"
#include "formats/sector_cipher.h"

namespace underlay {

// Format::set_option: encrypt.format and encrypt.key-secret.
Result<bool> set_qcow2_option(ImageOptions& options, std::string_view key, std::string_view value);

// What decrypts the image's clusters, by their offset in the file; null when they are not
// encrypted. Fails when the image and what the operator said of it do not fit each other. Reads the
// secret, and forgets it again.
Result<std::unique_ptr<const SectorCipher>> unlock_qcow2(const ImageToOpen& image,
                                                         const Qcow2Header& header,
                                                         const Qcow2Extensions& extensions);

}  // namespace underlay
