"""The layout is the architecture: imports point one way, one door, and a quick start."""

import ast
import pkgutil
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import phosphene

ROOT = Path(phosphene.__file__).parent

# Lowest first. A room may import from those in front of it, and from itself.
LAYERS = [
    {"errors", "malloc", "libraries", "modes"},
    {"types", "places", "apart"},
    {"engine", "imagefile"},
    {"networks"},
    {"recipe"},
    {"dreaming"},
    {"recognise"},
    {"setup", "verbs"},
    {"disk", "cluster"},
    {"job"},
    {"api"},
    {"live"},
    {"studies", "film", "notebook"},
    {"cli", "studio"},
    {"__main__"},
]
STRANGERS = [
    ("dreaming", "networks"),
    ("dreaming", "engine"),
    ("networks", "recipe"),
    ("networks", "imagefile"),
    ("networks", "dreaming"),
    ("imagefile", "networks"),
    ("imagefile", "recipe"),
    ("imagefile", "dreaming"),
    ("engine", "networks"),
    ("engine", "recipe"),
    ("cli", "studio"),
    ("film", "studies"),
]


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The parts of Phosphene that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            pytest.fail(f"{path} has a relative import; ours are absolute")
        found |= {name.split(".")[1] for name in names if name.startswith("phosphene.")}
    return found


FILES = [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    height = {name: level for level, names in enumerate(LAYERS) for name in names}
    here = part(path)
    assert here in height, f"{here} has no place in the architecture yet"
    for other in imports(path) - {here}:
        assert height[other] < height[here], f"{here} imports {other}, which is not below it"


@pytest.mark.parametrize(("one", "other"), STRANGERS)
def test_parts_that_do_not_know_each_other(one, other):
    for path in FILES:
        if part(path) == one:
            assert other not in imports(path), f"{path} imports {other}"


def imported_modules(path: Path) -> set[str]:
    """The modules of Phosphene that a file imports names from."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_the_engine_has_one_door():
    """The rest of the program imports `phosphene.engine`, and nothing from within it."""
    for path in FILES:
        if part(path) != "engine":
            assert not [name for name in imported_modules(path) if name.startswith("phosphene.engine.")], path


def test_the_engine_knows_no_card_and_no_recipe():
    for path in FILES:
        if part(path) == "engine":
            assert imports(path) <= {"engine", "errors", "libraries", "types"}, path


def file_of(name: str) -> Path:
    """The file of a module, or of the module that a name is imported from."""
    path = ROOT.parent / name.replace(".", "/")
    found = next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.exists()), None)
    return found or file_of(name.rpartition(".")[0])


def imported_files(path: Path) -> set[Path]:
    nodes = ast.walk(ast.parse(path.read_text()))
    names = [
        f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "phosphene"
        for alias in node.names
    ]
    return {file_of(name) for name in names}


def test_no_file_imports_itself_by_way_of_others():
    graph = {path: imported_files(path) - {path, ROOT / "__init__.py"} for path in FILES}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail("a circle: " + " <- ".join(str(path.relative_to(ROOT)) for path in error.args[1]))


def test_the_page_about_the_code_shows_every_room_and_names_what_exists():
    page = (ROOT.parents[1] / "docs/code.md").read_text()
    rooms, way, *_ = re.findall(r"```\n(.*?)```", page, re.DOTALL)
    for room in {part(path) for path in FILES} - {"__main__"}:
        assert re.search(rf"\b{room}\b", rooms), f"docs/code.md does not show {room}"
    for name in re.findall(r"`([a-z_/]+\.py|[a-z_]+/(?:[a-z_]+/)*)`", page):
        assert (ROOT / name).exists() or (ROOT.parents[1] / name).exists(), name
    for name in set(re.findall(r"\b[a-z_]+(?:\.[a-z_]+)+\b", way)) - {"photo.jpg", "torch.autograd"}:
        pkgutil.resolve_name(f"phosphene.{name}")


def test_only_imagefile_uses_pillow():
    users = {part(path) for path in FILES if "PIL" in path.read_text()}
    assert users == {"imagefile"}


def test_the_door_is_what_it_says():
    assert phosphene.__all__ == sorted(phosphene._HOMES)
    for name in phosphene.__all__:
        assert getattr(phosphene, name).__module__.startswith("phosphene.")
    with pytest.raises(AttributeError, match="no attribute 'draem'"):
        phosphene.draem  # noqa: B018


@pytest.mark.parametrize("command", [["--help"], ["dream", "--help"], ["--version"], ["looks"]])
def test_help_does_not_import_torch(command):
    script = f"import sys; from phosphene.cli import run; run({command!r}); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip().endswith("False")


def test_a_small_dream_loads_neither_a_compiler_nor_what_only_large_ones_need(tmp_path):
    """They would take as long as the dream."""
    command = ["dream", "sample:coffee", "-o", str(tmp_path / "dream.png"), "--size", "64", "--octaves", "1"]
    heavy = ["torch._dynamo", "numba", "ray", "matplotlib", "starlette"]
    script = f"import sys; from phosphene.cli import run; print(run({command!r}), *sys.modules.keys() & {heavy!r})"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.split()[1:] == ["0"]


def test_importing_phosphene_does_not_import_torch():
    script = "import phosphene, sys; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
