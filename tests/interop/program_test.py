#!/usr/bin/python3
"""What the program does with bad images, changing files, and a system that gives it little.

usage: program_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import program_changes
import program_images
import program_system
import program_threads
import rules_in_folders
from program_rules import Lab

rules_in_folders.main(Lab, program_images, program_changes, program_system, program_threads)
