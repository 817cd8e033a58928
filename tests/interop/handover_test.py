#!/usr/bin/python3
"""One underlay-nbd takes the place of another while clients are at work.

usage: handover_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import handover_clients
import handover_failures
import rules_in_folders
from handover_lab import HandoverLab

rules_in_folders.main(HandoverLab, handover_clients, handover_failures)
