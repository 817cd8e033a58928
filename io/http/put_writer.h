// An object that is sent to a web server with PUT, while it is made or when it is.
#pragma once

#include <memory>

#include "io/http/http_target.h"
#include "io/http/object_writer.h"

namespace underlay {

Result<std::unique_ptr<ObjectWriter>> make_put_writer(HttpTarget target, WriteSettings settings);

}  // namespace underlay
