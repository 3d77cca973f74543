"""The command line: parse, show, cancel. Nothing that a script could not do through `phosphene.job`."""

import os
import sys

import cyclopts
from cyclopts import App, Parameter
from pydantic import ValidationError

from phosphene.cli import comparing, dreaming, film, models, resume
from phosphene.cli.progress import INTERRUPTED
from phosphene.errors import PhospheneError, UsageError
from phosphene.malloc import keep_freed
from phosphene.places import check_name
from phosphene.recipe.settings import describe_problems
from phosphene.recipe.spelling import current

app = App(
    name="phosphene",
    help="Dream photographs: amplify what an image network faintly sees until anyone can see it.\n\n"
    "Try: phosphene dream sample:coffee -o dream.png",
    version_flags=["--version"],
    help_format="plaintext",
    default_parameter=Parameter(show_default=lambda value: None if value in (None, False, ()) else str(value)),
)
dreaming.add_to(app)
film.add_to(app)
resume.add_to(app)
comparing.add_to(app)
models.add_to(app)
app.command(
    "phosphene.studio.command:studio",  # loaded when it is asked for: the command line does not know the studio
    name="studio",
    help="Open a page on this machine: drop a photograph, choose a look, watch it dream.",
)


def main() -> None:
    """Run the command line, and exit with 0, 1 (failure), 2 (usage) or 130 (interrupted)."""
    if sys.argv[1:2] != ["studio"]:  # a long-lived process, which returns memory between dreams
        keep_freed()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors are one sentence on standard error."""
    arguments = [current(word) for word in arguments]
    try:
        if "-" in arguments:  # which the parser would take for an option without a name
            check_name("-")
        if {"", "--output="} & {*arguments}:  # which would stand for the folder that we are in
            raise UsageError("'' is no name of a file and no value: give one, or leave it out")
        return int(app(arguments, exit_on_error=False, print_error=False, result_action="return_value") or 0)
    except PhospheneError as error:
        return _fail(str(error), error.exit_code)
    except cyclopts.MissingArgumentError as error:
        return _fail(_missing(error), 2)
    except cyclopts.CycloptsError as error:
        cause = error.__cause__
        return _fail(describe_problems(cause.errors()) if isinstance(cause, ValidationError) else str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return 1
    except FileNotFoundError:
        if _is_somewhere():
            raise
        return _fail("the folder that you are in was removed: go to another one", UsageError.exit_code)


def _is_somewhere() -> bool:
    """Whether the folder that we are in is still there."""
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def _missing(error: cyclopts.MissingArgumentError) -> str:
    command = " ".join(["phosphene", *(error.command_chain or ())])
    name = error.argument.name if error.argument else "an argument"
    return f"{name} is missing: `{command} --help` says what it is"


def _fail(sentence: str, code: int) -> int:
    print(f"phosphene: {sentence}", file=sys.stderr)
    return code
