#!/usr/bin/python3
"""Encrypted connections, against the clients that people use and one that says anything.

usage: tls_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import rules_in_folders
import tls_credentials
import tls_protocol
import tls_records
from tls_lab import Lab

rules_in_folders.main(Lab, tls_credentials, tls_protocol, tls_records)
