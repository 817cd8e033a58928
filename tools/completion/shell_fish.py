"""Completion for fish."""
import values

TEMPLATE = r"""# Completion of NAME for fish, made out of what NAME prints for --help.

# Does this command stand before the cursor, with so many operands?
function FUNCTION_at --argument-names wanted_command wanted_operands
    set -l command ''
    set -l operands 0
    set -l is_value 0
    for word in (commandline -opc)[2..]
        if test $is_value = 1
            set is_value 0
            continue
        end
        switch "$command $word"
            case VALUED
                set is_value 1
            case '* -*'
            case '*'
                PLACE
        end
    end
    test "$command" = "$wanted_command"
    and test -z "$wanted_operands" -o "$operands" = "$wanted_operands"
end

# The first column of a list that the program prints; nothing for who may not see it.
function FUNCTION_listed
    set -l program (commandline -opc)[1]
    $program $argv 2>/dev/null | tail -n +2 | string replace -r ' .*' ''
end

# CHILD=PATH
function FUNCTION_named_file
    set -l typed (string split -m 1 = -- (commandline -ct))
    test (count $typed) = 2
    and string replace -r '^' "$typed[1]=" -- (__fish_complete_path $typed[2])
end

complete -c NAME -f
COMPLETIONS
"""


def quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def action(kind, function):
    """The arguments of `complete` for a value of this kind."""
    return {
        "file": "-r -F",
        "folder": "-x -a '(__fish_complete_directories (commandline -ct))'",
        "named file": f"-x -a '({function}_named_file)'",
        "volume": f"-x -a '({function}_listed list)'",
        "pool": f"-x -a '({function}_listed pool list)'",
        "words": "-x -a " + quoted(" ".join(kind.words)),
        "text": "-x",
    }[kind.what]


def condition(function, *place):
    return "-n " + quoted(" ".join([f"{function}_at", *(f'"{word}"' for word in place)]))


def lines_of(program, command, function):
    lines = []
    for option in command.options:
        if option in program.everywhere and command != program.itself:
            continue
        words = [f"complete -c {program.name}"]
        if option not in program.everywhere:
            words.append(condition(function, command.name))
        if option.letter:
            words.append(f"-s {option.letter}")
        words.append(f"-l {option.name}")
        if option.value:
            words.append(action(values.of_option(command, option), function))
        lines.append(" ".join([*words, "-d", quoted(option.help)]))
    for number, operand in enumerate(command.operands):
        kind = values.of_operand(command, operand)
        if kind != values.TEXT:
            lines.append(f"complete -c {program.name} {condition(function, command.name, number)} "
                         + action(kind, function).replace("-r -F", "-F").replace("-x ", ""))
    return lines


def completion(program):
    function = "__" + program.name.replace("-", "_")
    lines = []
    for group in (["", *program.groups] if program.commands else []):
        lines += [f"complete -c {program.name} {condition(function, group, 0)} -a {word}"
                  + (f" -d {quoted(purpose)}" if purpose else "")
                  for word, purpose in program.next_words(group).items()]
    valued = []
    for command in (program.itself, *program.commands):
        lines += lines_of(program, command, function)
        valued += [quoted(f"{command.name} {spelling}") for option in command.options
                   if option.value for spelling in option.spellings]
    place = "set operands (math $operands + 1)"
    if program.has_both:
        place = ('if test -z "$command" -a $operands = 0; and contains -- $word '
                 f'{" ".join(program.next_words())}\n'
                 "                    set command $word\n"
                 "                else\n                    set operands (math $operands + 1)\n"
                 "                end")
    elif program.commands:
        in_group = "".join(f"; or test \"$command\" = {group}" for group in program.groups)
        place = (f'if test -z "$command"{in_group}\n'
                 '                    set command (string trim -- "$command $word")\n'
                 "                else\n                    set operands (math $operands + 1)\n"
                 "                end")
    parts = {"VALUED": " ".join(valued), "PLACE": place, "COMPLETIONS": "\n".join(lines),
             "FUNCTION": function, "NAME": program.name}
    text = TEMPLATE
    for name, part in parts.items():
        text = text.replace(name, part)
    return text
