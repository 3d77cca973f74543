"""Build the wheel and the sdist, install each into an empty environment, and dream there.

    python scripts/packages.py

What Phosphene needs is taken from the environment that this runs in, so that nothing is downloaded: what is tried is
what the packages hold.
"""

import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def run(*command: str | Path, folder: Path = PROJECT) -> str:
    """Run a command, and return what it prints."""
    return subprocess.run([str(word) for word in command], cwd=folder, check=True, text=True, stdout=-1).stdout


def check_contents(wheel: Path) -> None:
    """Exit where the wheel has not the files of the package that git has, all and no others."""
    expected = {name.removeprefix("src/") for name in run("git", "ls-files", "src/phosphene").split()}
    with zipfile.ZipFile(wheel) as file:
        found = {name for name in file.namelist() if name.startswith("phosphene/")}
    if found != expected:
        sys.exit(f"{wheel.name} differs from what git has: {sorted(found ^ expected)}")


def dream_with(package: Path, folder: Path) -> None:
    """Install a package into an empty environment, and dream there with the command and with Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    inside = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (inside / "needed.pth").write_text(sysconfig.get_path("purelib"))
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, package)
    home = run(python, "-P", "-c", "import phosphene; print(phosphene.__file__)", folder=folder).strip()
    if not Path(home).is_relative_to(inside):
        sys.exit(f"{home} is not in {inside}")
    small = ("--size", "96", "--octaves", "1", "--steps", "1")
    run(folder / "bin" / "phosphene", "dream", "sample:coffee", "-o", "command.png", *small, folder=folder)
    script = "import phosphene; phosphene.dream('sample:coffee', size=96, octaves=1, steps=1).save('python.png')"
    run(python, "-P", "-c", script, folder=folder)
    if (folder / "command.png").read_bytes() != (folder / "python.png").read_bytes():
        sys.exit(f"{package.name}: the command and Python dream differently")
    print(f"{package.name} installs, and dreams")


def main() -> None:
    """Build both and try both."""
    with tempfile.TemporaryDirectory(prefix="packages-") as folder:
        built = Path(folder, "built")
        run(sys.executable, "-m", "hatchling", "build", "-d", built)
        (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
        check_contents(wheel)
        for package in (wheel, sdist):
            dream_with(package, Path(folder, package.suffix))


if __name__ == "__main__":
    main()
