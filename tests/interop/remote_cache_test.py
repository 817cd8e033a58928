#!/usr/bin/python3
"""The cache of images on servers (--cache-dir): what was fetched once is never fetched again,
by whichever server, whenever it was killed; and whatever befalls the cache, every byte is right.

usage: remote_cache_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import os

import remote_cache_http
import remote_cache_rules
import rules_in_folders
from remote_cache_lab import Lab

# Requests go to servers of our own.
os.environ["no_proxy"] = "*"
rules_in_folders.main(Lab, remote_cache_rules, remote_cache_http)
