#!/usr/bin/python3
"""Sessions that break off or say something wrong, at any byte, harm nobody.

usage: hostile_sessions_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import hostile_sessions
import rules_in_folders
from hostile_lab import Lab

rules_in_folders.main(Lab, hostile_sessions)
