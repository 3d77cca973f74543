"""The `phosphene` command, and `python -m phosphene`."""

import sys

from phosphene.malloc import begin_again


def main() -> None:
    """Begin again with settings that a process can only have from its beginning, and run the command line."""
    if sys.argv[1:2] != ["studio"]:  # long-lived and mostly idle, so it must return memory
        begin_again()
    from phosphene.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
