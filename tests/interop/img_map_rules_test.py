#!/usr/bin/python3
"""underlay-img map beyond what it says of the image makers' images: its options, damage, memory, and
its pictures.

usage: img_map_rules_test.py UNDERLAY_IMG [RULE...]     RULE: part of a rule's name; only those run
"""
import img_map_options
import img_map_pictures
import rules_in_folders
from img_lab import Lab

rules_in_folders.main(Lab, img_map_options, img_map_pictures)
