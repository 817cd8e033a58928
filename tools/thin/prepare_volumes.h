// Command lines about volumes.
#pragma once

#include "tools/thin/command_options.h"

namespace underlay::thin {

void declare_create(OptionList& options);
Result<CommandRun> prepare_create(const Operands& operands, const CommandOptions& options);
Result<CommandRun> prepare_snapshot(const Operands& operands, const CommandOptions& options);
void declare_activate(OptionList& options);
Result<CommandRun> prepare_activate(const Operands& operands, const CommandOptions& options);
void declare_deactivate(OptionList& options);
Result<CommandRun> prepare_deactivate(const Operands& operands, const CommandOptions& options);
Result<CommandRun> prepare_remove(const Operands& operands, const CommandOptions& options);
void declare_hydrate(OptionList& options);
Result<CommandRun> prepare_hydrate(const Operands& operands, const CommandOptions& options);
void declare_export(OptionList& options);
Result<CommandRun> prepare_export(const Operands& operands, const CommandOptions& options);
void declare_import(OptionList& options);
Result<CommandRun> prepare_import(const Operands& operands, const CommandOptions& options);
void declare_fsck(OptionList& options);
Result<CommandRun> prepare_fsck(const Operands& operands, const CommandOptions& options);
Result<CommandRun> prepare_list(const Operands& operands, const CommandOptions& options);
Result<CommandRun> prepare_status(const Operands& operands, const CommandOptions& options);

}  // namespace underlay::thin
