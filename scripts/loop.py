"""Make the loop at the top of the README: a zoom into a free photograph that ends where it began.

python scripts/loop.py docs/pictures
"""

import sys
from pathlib import Path

import phosphene

phosphene.zoom(
    "sample:coffee",
    Path(sys.argv[1]) / "zoom.webp",
    size=320,
    seconds=6,
    rate=1.7,
    fps=12,
    towards=(0.42, 0.48),
    turn=5,
    loop=True,
    overwrite=True,
)
