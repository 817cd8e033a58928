"""Asks bash, zsh and fish what they would complete command lines with.

SHELLS[NAME](folder, environment, lines) has the set of whole words for each line; `folder` has the
completions (tools/completion/generate.py).
"""
import os
import re
import subprocess

TIME_LIMIT = 120
END = "END OF LINE"

# readline's words: "=" stands alone. compopt has no meaning here.
BASH = r"""
source /usr/share/bash-completion/bash_completion
compopt() { :; }
folder=$1
for COMP_LINE in "${@:2}"; do
    words=${COMP_LINE//=/ = }
    COMP_WORDS=($words) COMP_POINT=${#COMP_LINE} COMP_TYPE=9 COMP_KEY=9
    [[ $words != *' ' ]] || COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    program=${COMP_WORDS[0]}
    source "$folder/bash/$program"
    COMPREPLY=()
    "_${program//-/_}" "$program" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf '%s\n' "${COMPREPLY[@]}" "END OF LINE"
done
"""

# A shell on a terminal of its own, in which compadd tells what it gets.
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PROMPT=; stty -echo; setopt rc_quotes no_list_beep; fpath=('${(q)1}/zsh' $fpath)'
zpty -w shell 'autoload -Uz compinit; compinit -u -D'
zpty -w shell 'compadd() {
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then builtin compadd "$@"; return; fi
    local -a hits
    builtin compadd -A hits "$@"
    print; print -rl -- "HIT:"$^hits
    builtin compadd "$@"
}'
zpty -w shell 'told() { print; print -n END; print " OF LINE" }'
zpty -w shell 'tell() { comppostfuncs=(told); _main_complete; BUFFER=; return 0 }'
zpty -w shell 'zle -C tell complete-word tell; bindkey "^T" tell; print READY'
zpty -r shell output $'*\nREADY'
for line in "${@[2,-1]}"; do
    zpty -w -n shell $'\C-u'"$line"$'\C-t'
    zpty -r shell output $'*\nEND OF LINE'
    print -r -- "$output"
done
zpty -d shell
"""

FISH = r"""
for file in $argv[1]/fish/*.fish
    source $file
end
for line in $argv[2..]
    complete -C $line
    echo END OF LINE
end
"""


def bash(folder, environment, lines):
    said = run(["bash", "--norc", "-c", BASH, "bash", folder, *lines], environment)
    return [{word for word in answer if word} for answer in answers(said)]


def zsh(folder, environment, lines):
    said = run(["zsh", "-f", "-c", ZSH, "zsh", folder, *lines], environment)
    return [{word.removeprefix("HIT:") for word in answer if word.startswith("HIT:")}
            for answer in answers(said.replace("\r", ""))]


def fish(folder, environment, lines):
    said = run(["fish", "--no-config", "-c", FISH, folder, *lines], environment)
    return [{word.split("\t")[0] for word in answer} for answer in answers(said)]


def answers(text):
    return [answer.splitlines() for answer in re.split(rf"^{END}\n", text, flags=re.MULTILINE)[:-1]]


def run(command, environment):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False, timeout=TIME_LIMIT, env={**os.environ, **environment},
                          cwd=environment["PWD"])
    assert done.stderr == "", done.stderr
    return done.stdout


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
