// Command lines about pools.
#pragma once

#include "tools/thin/command_options.h"

namespace underlay::thin {

void declare_pool_create(OptionList& options);
Result<CommandRun> prepare_pool_create(const Operands& operands, const CommandOptions& options);
Result<CommandRun> prepare_pool_list(const Operands& operands, const CommandOptions& options);
Result<CommandRun> prepare_pool_status(const Operands& operands, const CommandOptions& options);
void declare_pool_grow(OptionList& options);
Result<CommandRun> prepare_pool_grow(const Operands& operands, const CommandOptions& options);
void declare_pool_remove(OptionList& options);
Result<CommandRun> prepare_pool_remove(const Operands& operands, const CommandOptions& options);

}  // namespace underlay::thin
