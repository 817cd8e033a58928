#!/usr/bin/python3
"""Writes a program's completions for bash, zsh and fish, out of what it prints for --help: so they
know every command and option, and no other.

usage: generate.py PROGRAM FOLDER

They are FOLDER/bash/NAME, FOLDER/zsh/_NAME and FOLDER/fish/NAME.fish.
"""
import os
import sys

import help_text
import shell_bash
import shell_fish
import shell_zsh



def main():
    path, folder = sys.argv[1:]
    name = os.path.basename(path)
    program = help_text.read_program(path, name)
    for shell, file, text in (("bash", name, shell_bash.completion(program)),
                              ("zsh", "_" + name, shell_zsh.completion(program)),
                              ("fish", name + ".fish", shell_fish.completion(program))):
        os.makedirs(os.path.join(folder, shell), exist_ok=True)
        with open(os.path.join(folder, shell, file), "w", encoding="utf-8") as out:
            out.write(text)


main()
