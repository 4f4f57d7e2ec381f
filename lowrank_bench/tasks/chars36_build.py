"""Build the glyphs of chars36 from free fonts: ``python -m lowrank_bench.tasks.chars36_build``.

Only this script needs npm, the network and the fonts; it reads ``assets/chars36_families.txt`` (fontsource family and
version, one a line) and writes ``assets/chars36.npz.xz`` and ``assets/chars36_credits.tsv``.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import string
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont

from lowrank_bench.tasks.task import Split

ASSETS = Path(__file__).parent / "assets"
CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
FREE = {"Apache-2.0", "CC0-1.0", "MIT", "OFL-1.1", "UFL-1.0", "Unlicense"}
SIZE = 28  # pixels: the longer side of a glyph fills it
SAME_GLYPH, SAME_FAMILY = 0.03, 0.03  # mean absolute difference of grey, of 1, below which one of the two is left out
# pb=0: there is no alignment to exploit in bytes that are pixels.
XZ_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 3, "lp": 0, "pb": 0}]

Glyphs = NDArray[np.uint8]


@dataclass(frozen=True)
class Family:
    """One family: glyphs (weights, 62, SIZE, SIZE) of 0 to 15, in the order of CHARACTERS, and their source."""

    name: str
    glyphs: Glyphs
    version: str
    licence: str
    copyright_line: str

    @property
    def split(self) -> Split:
        """Split of the family: relatives such as Source Sans and Source Serif share their first word."""
        digit = hashlib.sha256(self.name.split("-")[0].encode()).digest()[0] * 10 // 256
        return "test" if digit < 2 else "validation" if digit < 3 else "train"


def main() -> None:
    """Fetch the fonts, render them, and write the asset and its credits."""
    with tempfile.TemporaryDirectory() as folder:
        fonts = fetch(Path(folder))
        with ProcessPoolExecutor() as pool:
            rendered = pool.map(partial(render, fonts), sorted(path.name for path in fonts.iterdir()), chunksize=8)
            families = list(unlike(family for family in rendered if family is not None))
    for split, members in groupby(sorted(families, key=attrgetter("split")), key=attrgetter("split")):
        print(f"{split}: {len(list(members))} families")
    write(families)


def fetch(folder: Path) -> Path:
    """Install the listed packages with npm into ``folder``; returns the folder that holds one folder per family."""
    listed = (line.split() for line in (ASSETS / "chars36_families.txt").read_text().splitlines())
    package = {"private": True, "dependencies": {f"@fontsource/{name}": version for name, version in listed}}
    (folder / "package.json").write_text(json.dumps(package))
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--maxsockets", "6"]
    subprocess.run(["npm", "install", *options], cwd=folder, check=True)
    return folder / "node_modules" / "@fontsource"


def render(fonts: Path, name: str) -> Family | None:
    """Render a family's regular and, of every other family, its bold; None where it is unfree or incomplete."""
    metadata = json.loads((fonts / name / "package.json").read_text())
    licence = str(metadata["license"]).replace("mit", "MIT")
    if licence not in FREE:
        return None
    files = [fonts / name / "files" / f"{name}-latin-{weight}-normal.woff2" for weight in (400, 700)]
    wanted = files[: 1 + hashlib.sha256(name.encode()).digest()[1] % 2]
    faces = [face for path in wanted if path.exists() and (face := render_face(path)) is not None]
    if not faces:
        return None
    text = fonts / name / "LICENSE"  # opens with the copyright line; the oldest packages have none
    copyright_line = text.read_text().strip().splitlines()[0].strip() if text.exists() else ""
    return Family(name, np.stack(faces), metadata["version"], licence, copyright_line)


def render_face(path: Path) -> Glyphs | None:
    """Render the characters of one font file; None where one is blank or the font's sign for a missing character."""
    font = ImageFont.truetype(path, 4 * SIZE, layout_engine=ImageFont.Layout.BASIC)
    missing = bytes(font.getmask("\uffff"))
    glyphs = []
    for character in CHARACTERS:
        mask = font.getmask(character, mode="L")
        if not any(mask) or bytes(mask) == missing:
            return None
        glyphs.append(fit(Image.frombytes("L", mask.size, bytes(mask))))
    return np.stack(glyphs)


def fit(image: Image.Image) -> Glyphs:
    """Crop to the ink, scale the longer side to SIZE, centre, and round to 16 greys."""
    ink = image.crop(image.getbbox())
    scale = SIZE / max(ink.size)
    ink = ink.resize((max(1, round(ink.width * scale)), max(1, round(ink.height * scale))), Image.Resampling.BOX)
    square = Image.new("L", (SIZE, SIZE))
    square.paste(ink, ((SIZE - ink.width) // 2, (SIZE - ink.height) // 2))
    return ((np.asarray(square, dtype=np.uint16) * 15 + 127) // 255).astype(np.uint8)


def unlike(families: Iterator[Family]) -> Iterator[Family]:
    """Leave out a family whose regular is nearly that of an earlier one: a renamed copy would leak over the splits."""
    kept: list[NDArray[np.float32]] = []
    for family in families:
        regular = family.glyphs[0].astype(np.float32) / 15
        if all(np.abs(regular - other).mean() >= SAME_FAMILY for other in kept):
            kept.append(regular)
            yield family


def write(families: list[Family]) -> None:
    """Write the asset: all glyphs by split and family, lower-case letters that look like their upper case left out."""
    families = sorted(families, key=attrgetter("split", "name"))
    glyphs, labels, owners = [], [], []
    for owner, family in enumerate(families):
        for face in family.glyphs:
            for index, glyph in enumerate(face):
                upper = face[index - 26]
                if index >= 36 and np.abs(glyph.astype(int) - upper).mean() < SAME_GLYPH * 15:
                    continue
                glyphs.append(glyph)
                labels.append(index if index < 36 else index - 26)
                owners.append(owner)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        glyphs=np.stack(glyphs),
        labels=np.array(labels, dtype=np.uint8),
        families=np.array(owners, dtype=np.uint16),
        names=np.array([family.name for family in families]),
        splits=np.array([family.split for family in families]),
    )
    asset = lzma.compress(buffer.getvalue(), lzma.FORMAT_XZ, filters=XZ_FILTERS)
    (ASSETS / "chars36.npz.xz").write_bytes(asset)
    families.sort(key=attrgetter("name"))
    rows = [f"{f.name}\t{f.version}\t{f.licence}\t{f.copyright_line}" for f in families]
    rows.insert(0, "family\tfontsource version\tlicence\tcopyright")
    (ASSETS / "chars36_credits.tsv").write_text("\n".join(rows) + "\n")
    print(f"{len(glyphs)} glyphs of {len(families)} families in {len(asset):,} bytes")


if __name__ == "__main__":
    main()
