"""The `phosphene` command, and `python -m phosphene`."""

from phosphene.allocation import begin_again


def main() -> None:
    """Begin again with settings that a process can only have from its beginning, and run the command line."""
    begin_again()
    from phosphene.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
