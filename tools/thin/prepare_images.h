// Command lines about images: attach, detach, watch, upgrade.
#pragma once

#include "tools/thin/command_options.h"
#include "tools/thin/image_choice.h"

namespace underlay::thin {

// The options that say which image and how to attach it.
void declare_image(OptionList& options);
Result<ImageArguments> image_arguments(const std::string& location, const CommandOptions& options);

Result<CommandRun> prepare_attach(const Operands& operands, const CommandOptions& options);
Result<CommandRun> prepare_detach(const Operands& operands, const CommandOptions& options);
void declare_watch(OptionList& options);
Result<CommandRun> prepare_watch(const Operands& operands, const CommandOptions& options);
void declare_upgrade(OptionList& options);
Result<CommandRun> prepare_upgrade(const Operands& operands, const CommandOptions& options);

}  // namespace underlay::thin
