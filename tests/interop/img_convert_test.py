#!/usr/bin/python3
"""underlay-img convert: what it writes is whole and equal for qemu-img, for the libraries of libyal
and for us; the same disk gives the same bytes; and what fails leaves nothing that looks like an
image.

usage: img_convert_test.py UNDERLAY_IMG [RULE...]
"""
import img_convert_failures
import img_convert_images
import img_convert_overlays
import img_convert_places
import rules_in_folders
from img_convert_lab import Lab

rules_in_folders.main(Lab, img_convert_images, img_convert_failures, img_convert_places,
                      img_convert_overlays, at_once=2)
