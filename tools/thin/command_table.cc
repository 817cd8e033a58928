#include "tools/thin/command_table.h"

#include <array>

#include "tools/thin/prepare_images.h"
#include "tools/thin/prepare_pools.h"
#include "tools/thin/prepare_volumes.h"

namespace underlay::thin {
namespace {

constexpr std::array kCommands{
    Command{"pool create", "NAME", "make a pool of two devices, or of files", declare_pool_create,
            prepare_pool_create},
    Command{"pool list", "", "list the pools", nullptr, prepare_pool_list},
    Command{"pool status", "NAME", "tell how full and how healthy a pool is", nullptr,
            prepare_pool_status},
    Command{"pool grow", "NAME", "take more room into use", declare_pool_grow, prepare_pool_grow},
    Command{"pool remove", "NAME", "delete an empty pool", declare_pool_remove,
            prepare_pool_remove},
    Command{"create", "NAME", "make a volume on an image", declare_create, prepare_create},
    Command{"snapshot", "NAME NEW", "make a volume of another one's present state", nullptr,
            prepare_snapshot},
    Command{"activate", "[NAME]", "bring up a volume, or all (after a boot)", declare_activate,
            prepare_activate},
    Command{"deactivate", "[NAME]", "take down a volume, or all; nothing is lost",
            declare_deactivate, prepare_deactivate},
    Command{"remove", "NAME", "delete a volume", nullptr, prepare_remove},
    Command{"export", "NAME TARGET", "write a volume as an image: to a file, or to a server",
            declare_export, prepare_export},
    Command{"import", "NAME IMAGE", "make a volume of an image, and copy all of it", declare_import,
            prepare_import},
    Command{"hydrate", "NAME", "copy what a volume reads from its image, then let go of the image",
            declare_hydrate, prepare_hydrate},
    Command{"fsck", "", "tell, or repair, what is not as the registry says", declare_fsck,
            prepare_fsck},
    Command{"list", "", "list the volumes", nullptr, prepare_list},
    Command{"status", "NAME", "tell how a volume is doing", nullptr, prepare_status},
    Command{"attach", "IMAGE", "put an image behind an nbd device of the kernel", declare_image,
            prepare_attach},
    Command{"detach", "IMAGE", "let go of an image that was attached by name", nullptr,
            prepare_detach},
    Command{"watch", "", "reconnect images whose server or connection is lost", declare_watch,
            prepare_watch},
    Command{"upgrade", "[IMAGE]", "let a newer program serve an image, under its readers",
            declare_upgrade, prepare_upgrade},
};

}  // namespace

std::span<const Command> commands() { return kCommands; }

}  // namespace underlay::thin
