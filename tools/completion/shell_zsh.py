"""Completion for zsh, by its function _arguments."""
import values

TEMPLATE = r"""#compdef NAME
# Completion of NAME for zsh, made out of what NAME prints for --help.

# The first column of a list that the program prints; nothing for who may not see it.
FUNCTION_listed() {
    local -a names
    names=(${${(f)"$(_call_program names $service "$@" 2>/dev/null)"}[2,-1]%% *})
    compadd -a names
}

# CHILD=PATH
FUNCTION_named_file() {
    compset -P '*=' && _files
}

FUNCTIONS
FUNCTION "$@"
"""


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def action(kind, function):
    return {
        "file": "_files",
        "folder": "_files -/",
        "named file": f"{function}_named_file",
        # With a blank before it _arguments adds no words of its own.
        "volume": f" {function}_listed list",
        "pool": f" {function}_listed pool list",
        "words": f"({' '.join(kind.words)})",
        "text": " ",
    }[kind.what]


def spec(command, option, function):
    """The option as _arguments takes it."""
    text = option.help.replace("[", r"\[").replace("]", r"\]")
    behind = f"[{text}]"
    letter, name = f"-{option.letter}", f"--{option.name}"
    if option.value:
        behind += f":{option.value}:{action(values.of_option(command, option), function)}"
        letter, name = letter + "+", name + "="
    if option.name in ("help", "version"):
        alone = "'(- *)'"
    elif option.is_repeatable:
        alone = "'*'"
    else:
        alone = quoted(f"({' '.join(option.spellings)})")
    spellings = f"{{{letter},{name}}}" if option.letter else name
    return f"{alone}{spellings}{quoted(behind)}"


def arguments_of(program, command, function, indent):
    specs = [spec(command, option, function) for option in command.options
             if option not in program.everywhere]
    for number, operand in enumerate(command.operands, 1):
        does = action(values.of_operand(command, operand), function)
        if program.has_both and command == program.itself:
            does = f"{{{does}; compadd {' '.join(program.next_words())}}}"
        specs.append(quoted(f"{number}:{operand}:{does}"))
    return (" \\\n" + indent + "    ").join(["_arguments -s -S $everywhere", *specs])


def group_function(program, group, function):
    """Completes a command, or what follows the first word of one."""
    name = f"{function}_{group}" if group else function
    specs = [spec(program.itself, option, function) for option in program.itself.options
             if not group and option not in program.everywhere]
    lines = [f"{name}() {{",
             "    local curcontext=$curcontext state ret=1",
             "    local -a words_here"]
    lines += ["    " + line for line in everywhere(program, function)]
    lines += ["    " + (" \\\n        ".join(
        ["_arguments -C -s -S $everywhere", *specs, "'1:command:->command'", "'*::argument:->argument'"]))
        + " && ret=0",
        "    case $state in",
        "        command)",
        "            words_here=("]
    for word, purpose in program.next_words(group).items():
        lines.append("                " + quoted(f"{word}:{purpose}" if purpose else word))
    lines += ["            )",
              "            _describe -t commands command words_here && ret=0",
              "            ;;",
              "        argument)",
              "            curcontext=${curcontext%:*:*}:" + name.lstrip("_") + "-$words[1]:",
              "            case $words[1] in"]
    by_name = {command.name: command for command in program.commands}
    for word, purpose in program.next_words(group).items():
        command = by_name.get(f"{group} {word}".strip())
        does = (arguments_of(program, command, function, " " * 20) if command
                else f"{function}_{word}")
        lines += [f"                {word})", f"                    {does} && ret=0",
                  "                    ;;"]
    lines += ["            esac", "            ;;", "    esac", "    return ret", "}"]
    return "\n".join(lines)


def everywhere(program, function):
    specs = [spec(program.itself, option, function) for option in program.everywhere]
    return ["local -a everywhere=(", *("    " + text for text in specs), ")"]


def lone_function(program, function):
    """Of a program without commands."""
    return "\n".join([f"{function}() {{",
                      *("    " + line for line in everywhere(program, function)),
                      "    " + arguments_of(program, program.itself, function, "    "), "}"])


def mixed_function(program, function):
    """Of a program whose first operand may be a command."""
    lines = [f"{function}() {{",
             *("    " + line for line in everywhere(program, function)),
             "    case $words[2] in"]
    for command in program.commands:
        lines += [f"        {command.name})",
                  "            if ((CURRENT > 2)); then",
                  "                shift words",
                  "                ((CURRENT--))",
                  "                " + arguments_of(program, command, function, " " * 16),
                  "                return",
                  "            fi",
                  "            ;;"]
    lines += ["    esac", "    " + arguments_of(program, program.itself, function, "    "), "}"]
    return "\n".join(lines)


def completion(program):
    function = "_" + program.name
    if program.has_both:
        functions = [mixed_function(program, function)]
    elif program.commands:
        functions = [group_function(program, group, function) for group in [*program.groups, ""]]
    else:
        functions = [lone_function(program, function)]
    return (TEMPLATE.replace("FUNCTIONS", "\n\n".join(functions) + "\n")
            .replace("FUNCTION", function).replace("NAME", program.name))
