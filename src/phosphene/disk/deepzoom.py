"""A Deep Zoom pyramid of a picture, with a page that shows it in a browser, from a folder or from a server."""

import html
import json
import os
import shutil
from pathlib import Path
from string import Template
from typing import Any

from phosphene.imagefile.encode import xml_of
from phosphene.types import Size

TILE, OVERLAP, FORMAT = 510, 1, "jpg"
QUALITY = "[Q=90,subsample_mode=off]"


def save(picture: Any, path: Path, recipe: str) -> None:
    """Write NAME.dzi, the tiles in NAME_files and the page NAME.html; `picture` is libvips's.

    They are made in a folder beside, and moved when they are whole; NAME.dzi, which holds the recipe too, comes last.
    A symbolic link stands for what it points to.
    """
    path = Path(os.path.realpath(path))
    made = path.with_name(f".phosphene-{path.name}")
    shutil.rmtree(made, ignore_errors=True)  # what a process that was killed has left
    made.mkdir()
    try:
        _make(picture, made, path.stem, recipe)
        tiles = path.with_name(f"{path.stem}_files")
        if tiles.exists():
            tiles.replace(made / "older")
        for name in (tiles.name, f"{path.stem}.html", f"{path.stem}.dzi"):
            (made / name).replace(path.with_name(name))
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _make(picture: Any, made: Path, name: str, recipe: str) -> None:
    picture.dzsave(
        str(made / name),
        suffix=f".{FORMAT}{QUALITY}",
        tile_size=TILE,
        overlap=OVERLAP,
        keep="icc",
        depth="onepixel",
    )
    (made / f"{name}_files" / "vips-properties.xml").unlink(missing_ok=True)  # it carries the clock
    index = made / f"{name}.dzi"
    index.write_text(index.read_text().replace("</Image>", f"{xml_of(recipe)}</Image>"))
    (made / f"{name}.html").write_text(page((picture.height, picture.width), name, recipe))


def page(size: Size, name: str, recipe: str) -> str:
    """Write the page of a pyramid."""
    pyramid = {
        "files": f"{name}_files", "height": size[0], "width": size[1],
        "tileSize": TILE, "overlap": OVERLAP, "format": FORMAT,
    }  # fmt: skip
    template = Template((Path(__file__).parent / "deepzoom.html").read_text())
    escaped = json.dumps(pyramid).replace("<", "\\u003c")
    return template.safe_substitute(title=html.escape(name), pyramid=escaped, recipe=html.escape(recipe))
