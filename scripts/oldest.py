"""Print the oldest version that `pyproject.toml` allows of what a user installs, as pip's constraints."""

import re
import tomllib
from pathlib import Path


def oldest(pyproject: Path) -> list[str]:
    """Return `name==version` for each `name>=version` of the project and its extras; tools of development are new."""
    project = tomllib.loads(pyproject.read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(each for name, extra in project["optional-dependencies"].items() if name != "dev" for each in extra),
    ]
    found = [re.match(r"([\w-]+)(?:\[[^]]*])?>=([\w.]+)", text) for text in wanted]
    return sorted({f"{each[1]}=={each[2]}.*" for each in found if each})


if __name__ == "__main__":
    print("\n".join(oldest(Path(__file__).parents[1] / "pyproject.toml")))
