"""Completion for bash. It uses the functions of the package bash-completion, which loads it."""
import collections

import values

TEMPLATE = r"""# Completion of NAME for bash, made out of what NAME prints for --help.

FUNCTION_words() {
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}

# The first column of a list that the program prints; nothing for who may not see it.
FUNCTION_listed() {
    FUNCTION_words "$("$@" 2>/dev/null | while read -r name _; do echo "$name"; done | tail -n +2)"
}

# NAME=PATH
FUNCTION_named_file() {
    [[ $cur == *=* ]] || return
    cur=${cur#*=}
    _filedir
}

# Is the word behind this option its value?
FUNCTION_takes_value() {
    case "$1 $2" in
        VALUED) return 0 ;;
    esac
    return 1
}

FUNCTION() {
    local cur prev words cword split
    _init_completion -s || return
    local command="" operand=0 i
    for ((i = 1; i < cword; i++)); do
        if FUNCTION_takes_value "$command" "${words[i]}"; then
            ((++i))
        elif [[ ${words[i]} != -* ]]; then
            PLACE
        fi
    done
    if $split || ((i > cword)); then
        case "$command $prev" in
VALUES
        esac
    elif [[ $cur == -* ]]; then
        case $command in
OPTIONS
        esac
    else
        case "$command:$operand" in
OPERANDS
        esac
    fi
}
complete -F FUNCTION NAME
"""


def action(kind, function):
    """The command that completes a value of this kind; "" when nothing does."""
    return {
        "file": "_filedir",
        "folder": "_filedir -d",
        "named file": f"{function}_named_file",
        "volume": f'{function}_listed "$1" list',
        "pool": f'{function}_listed "$1" pool list',
        "words": f"{function}_words '{' '.join(kind.words)}'",
        "text": "",
    }[kind.what]


def arm(pattern, command):
    return f"            {pattern}) {command} ;;"


def patterns_of_values(program):
    """{kind: patterns for "COMMAND OPTION"}, without the command where it makes no difference."""
    kinds = collections.defaultdict(dict)  # of an option, by command
    for command in (program.itself, *program.commands):
        for option in command.options:
            for spelling in option.spellings:
                kind = values.of_option(command, option) if option.value else None
                kinds[spelling][command.name] = kind
    patterns = collections.defaultdict(list)
    for spelling, by_command in kinds.items():
        if len(set(by_command.values())) == 1:
            patterns[next(iter(by_command.values()))].append(f'*" {spelling}"')
            continue
        for command, kind in by_command.items():
            patterns[kind].append(f'"{command} {spelling}"')
    patterns.pop(None, None)
    return patterns


def completion(program):
    function = "_" + program.name.replace("-", "_")
    patterns = patterns_of_values(program)
    in_place = "((++operand))"
    commands = " ".join(program.next_words())
    if program.has_both:
        in_place = (f'if ((i == 1)) && [[ " {commands} " == *" ${{words[i]}} "* ]]; then\n'
                    "                command=${words[i]}\n"
                    "            else\n                ((++operand))\n            fi")
    elif program.commands:
        in_group = "".join(f" || $command == {group}" for group in program.groups)
        in_place = (f"if [[ -z $command{in_group} ]]; then\n"
                    '                command+="${command:+ }${words[i]}"\n'
                    "            else\n                ((++operand))\n            fi")
    option_words = {command.name: " ".join(spelling for option in command.options
                                           for spelling in option.spellings)
                    for command in (program.itself, *program.commands)}
    operands = [arm(f'"{group}:0"', f"{function}_words '{' '.join(program.next_words(group))}'")
                for group in (["", *program.groups] if program.commands else [])]
    if program.has_both:  # instead of them
        first = action(values.of_operand(program.itself, program.itself.operands[0]), function)
        words = f"COMPREPLY+=($(compgen -W '{commands}' -- \"$cur\"))"
        operands = [arm('":0"', f"{first}; ((cword == 1)) && {words}")]
    for command in (program.itself, *program.commands):
        for number, operand in enumerate(command.operands):
            does = action(values.of_operand(command, operand), function)
            operands += [arm(f'"{command.name}:{number}"', does)] if does else []
    parts = {
        "VALUED": " | ".join(sum(patterns.values(), [])),
        "PLACE": in_place,
        "VALUES": "\n".join(arm(" | ".join(found), action(kind, function))
                            for kind, found in patterns.items() if action(kind, function)),
        "OPTIONS": "\n".join(arm(f'"{name}"', f"{function}_words '{words}'")
                             for name, words in option_words.items()),
        "OPERANDS": "\n".join(operands),
        "FUNCTION": function,
        "NAME": program.name,
    }
    text = TEMPLATE.replace("# NAME=PATH", "# CHILD=PATH")
    for name, part in parts.items():
        text = text.replace(name, part)
    return text
