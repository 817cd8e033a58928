"""What the pictures of underlay-img map show, and when there is none."""
import io
import os
import pty
import re
import subprocess
import xml.etree.ElementTree

from PIL import Image

from img_lab import KIB, MIB

TIB = 1 << 40

# Where tools/img/map_picture.cc draws, in pixels: 64 cells a row, without the lines between them.
GRID_X, GRID_Y, CELL = 120, 140, 14
WIDTH = 1040
WHITE = (255, 255, 255)
# The colours of the first three images of a chain, and of what is in none.
HUES = [(0x00, 0x72, 0xb2), (0xe6, 0x9f, 0x00), (0x00, 0x9e, 0x73)]
NOWHERE = (0xf3, 0xf3, 0xf3)


def zeros(hue):
    return tuple(round(255 - (255 - part) * 0.16) for part in hue)


def alike(one, other):
    return all(abs(a - b) <= 2 for a, b in zip(one, other))


class Cells:
    """The cells of a picture, from the top left on."""

    def __init__(self, png):
        self.png = png

    def column(self, number):
        """A cell's pixels in its middle, from its bottom upwards."""
        x = GRID_X + number % 64 * CELL + CELL // 2 - 1
        y = GRID_Y + number // 64 * CELL
        return [self.png.getpixel((x, y + CELL - 2 - i)) for i in range(CELL - 1)]

    def is_all(self, number, colour):
        return all(alike(pixel, colour) for pixel in self.column(number))


def picture(lab, image, *options, image_format="qcow2"):
    png = Image.open(io.BytesIO(lab.output("map", "-f", image_format, "--output=png", *options,
                                           image)))
    png.load()
    assert (png.format, png.mode) == ("PNG", "RGB"), png
    return png


def description(lab, image, *options):
    """Of an SVG, as {name: {kind: bytes}}."""
    svg = xml.etree.ElementTree.fromstring(
        lab.output("map", "-f", "qcow2", "--output=svg", *options, image))
    name = "{http://www.w3.org/2000/svg}"
    assert svg.tag == name + "svg" and svg.get("width", "").startswith(str(WIDTH)), svg.attrib
    lines = svg.find(name + "desc").text.splitlines()
    found = {}
    for line in lines:
        image_name, bytes_of = line.rsplit(":", 1)
        found[image_name] = {kind: int(count) for count, kind in
                             re.findall(r"(\d+) bytes of (\w+)", bytes_of)}
    return svg.find(name + "title").text, found


def chain_of_three(lab):
    """4 MiB, a KiB for each cell."""
    lab.qcow2("base.qcow2", 4 * MIB, "write -c 0 64k", "write 64k 64k", "write -z 128k 64k")
    lab.qcow2("middle.qcow2", 4 * MIB, "write 1M 64k", backing="base.qcow2")
    return lab.qcow2("top & <co>.qcow2", 4 * MIB, "write 2M 128k", "write -z 64k 64k",
                     backing="middle.qcow2")


def rule_an_svg_tells_the_bytes_of_every_image_and_kind(lab):
    title, found = description(lab, chain_of_three(lab))
    assert title == "top & <co>.qcow2 (qcow2)", title
    assert found == {
        "top & <co>.qcow2 (qcow2)": {"data": 128 * KIB, "zeros": 64 * KIB},
        "middle.qcow2 (qcow2)": {"data": 64 * KIB},
        "base.qcow2 (qcow2)": {"compressed": 64 * KIB, "zeros": 64 * KIB},
        "in no image": {"zeros": 4 * MIB - 384 * KIB},
    }, found


def rule_a_png_has_each_image_in_its_colour(lab):
    png = picture(lab, chain_of_three(lab))
    assert png.width == WIDTH and png.height > GRID_Y + 64 * CELL, (png.width, png.height)
    cells = Cells(png)
    top, middle, base = HUES
    assert cells.is_all(1024, middle) and cells.is_all(1087, middle)
    assert cells.is_all(2048, top) and cells.is_all(2175, top)
    assert cells.is_all(64, zeros(top)) and cells.is_all(127, zeros(top))
    assert cells.is_all(128, zeros(base)) and cells.is_all(191, zeros(base))
    assert cells.is_all(192, NOWHERE) and cells.is_all(4095, NOWHERE)
    # Compressed data is striped: several shades of one hue, none of them the hue alone.
    stripes = set(cells.column(5))
    assert len(stripes) > 2 and all(green > blue > red for red, green, blue in stripes), stripes
    assert png.getpixel((GRID_X + 64 * CELL + 5, GRID_Y + 5)) == WHITE


def rule_a_cell_is_filled_as_far_as_it_is_stored(lab):
    """A GiB: 256 KiB for each cell."""
    image = lab.qcow2("a.qcow2", 1 << 30, "write 0 128k", "write 256k 64k", "write 512k 256k")
    cells = Cells(picture(lab, image))
    heights = [sum(alike(pixel, HUES[0]) for pixel in cells.column(i)) for i in range(4)]
    assert heights[0] in (6, 7) and heights[1:] == [3, 13, 0], heights
    assert alike(cells.column(0)[0], HUES[0]) and alike(cells.column(0)[12], NOWHERE)


def rule_little_data_in_a_sea_of_zeros_is_seen(lab):
    image = lab.qcow2("a.qcow2", 32 * TIB, f"write {17 * TIB} 64k", options="cluster_size=2M")
    cells = Cells(picture(lab, image))
    # 8 GiB for each cell.
    assert sum(alike(pixel, HUES[0]) for pixel in cells.column(17 * 128)) == 3
    assert cells.is_all(17 * 128 - 1, NOWHERE) and cells.is_all(17 * 128 + 1, NOWHERE)


def rule_a_long_chain_has_a_legend_that_fits(lab):
    backing = None
    for i in range(40):
        backing = lab.qcow2(f"{i}.qcow2", 4 * MIB, f"write {i * 64}k {64 if i < 35 else 1}k",
                            backing=backing)
    _, found = description(lab, backing)
    assert len(found) == 41 and found["0.qcow2 (qcow2)"] == {"data": 64 * KIB}, found
    png = picture(lab, backing)
    # Seven rows: the six images with colours of their own, and the others.
    assert png.height < GRID_Y + 64 * CELL + 400, png.height
    # 1 KiB for each cell: the newest image, and one of the others.
    assert Cells(png).is_all(39 * 64, HUES[0]) and Cells(png).is_all(10 * 64, (0x6e, 0x6e, 0x6e))


def rule_a_range_is_a_picture_of_its_own(lab):
    image = lab.qcow2("a.qcow2", 64 * MIB, "write 32M 1M")
    cells = Cells(picture(lab, image, "-s", "32M", "-l", "2M"))
    # 512 bytes for each cell.
    assert cells.is_all(0, HUES[0]) and cells.is_all(2047, HUES[0])
    assert cells.is_all(2048, NOWHERE) and cells.is_all(4095, NOWHERE)


def rule_any_size_makes_a_picture(lab):
    for size in (0, 512, 33 * KIB, MIB):
        png = picture(lab, lab.raw(f"{size}.img", size), image_format="raw")
        rows = -(-size // 512 // 64) if size < MIB else 32
        assert png.width == WIDTH and png.height > GRID_Y + rows * CELL, (size, png.height)


def rule_names_of_any_bytes_are_drawn(lab):
    image = lab.raw(b"bad \xff\x01 name".decode(errors="surrogateescape"), MIB)
    picture(lab, image, image_format="raw")
    svg = lab.output("map", "-f", "raw", "--output=svg", image)
    title = xml.etree.ElementTree.fromstring(svg).find("{http://www.w3.org/2000/svg}title").text
    assert title == "bad \\xff\\x01 name (raw)", title


def rule_no_png_goes_to_a_terminal(lab):
    image = lab.raw("a.img", MIB)
    ours, terminal = pty.openpty()
    try:
        line = lab.refusal("map", "-f", "raw", "--output=png", image, stdout=terminal)
        assert "not for a terminal" in line, line
        assert lab.run("map", "-f", "raw", image, stdout=terminal).status == 0
    finally:
        os.close(ours)
        os.close(terminal)


def rule_without_cairo_only_pictures_are_missing(lab):
    """What the program links to is the linker's word; a library that is none stands in for none."""
    linked = subprocess.run(["readelf", "-d", lab.program], check=True, capture_output=True)
    assert b"libcairo" not in linked.stdout
    with open(lab.path("libcairo.so.2"), "wb"):
        pass
    image = lab.raw("a.img", MIB)
    env = {"LD_LIBRARY_PATH": lab.folder}
    for output in ("svg", "png"):
        line = lab.refusal("map", "-f", "raw", f"--output={output}", image, env=env)
        assert "install the package libcairo2" in line, line
    assert lab.run("map", "-f", "raw", "--output=json", image, env=env).status == 0
