#!/usr/bin/python3
"""The control socket and SIGHUP, of a server that real clients use.

usage: control_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import control_commands
import control_reload
import rules_in_folders
from control_lab import Lab

rules_in_folders.main(Lab, control_commands, control_reload)
