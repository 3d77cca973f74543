"""`phosphene studio`. The command line knows this function by its path, and loads it when it is asked for."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from phosphene.errors import UsageError


def studio(
    *,
    folder: Path = Path("dreams"),
    port: int = 7866,
    open: Annotated[bool, Parameter(negative="")] = False,
    host: str = "127.0.0.1",
    password: Annotated[str | None, Parameter(env_var="PHOSPHENE_PASSWORD", show_env_var=True)] = None,
    most: float | None = None,
) -> None:
    """Open a page on this machine where photographs are dreamed by looking.

    Parameters
    ----------
    folder
        Where the dreams are, and go; the studio reads and writes nowhere else.
    port
        The page's port; 0 takes a free one.
    open
        Open the page in a browser.
    host
        The address to listen on; one that other machines can reach needs a password.
    password
        What a visitor's browser asks for.
    most
        What an order may cost, in megapixel-steps: steps x millions of pixels, over its octaves, and of other networks
        than the default one in proportion to their arithmetic. Without it, 2000 where other machines can reach the
        studio, and anything where they cannot.
    """
    try:
        from phosphene.studio.server import serve
    except ModuleNotFoundError as error:
        raise UsageError(f"the studio needs {error.name}: pip install 'phosphene[studio]'") from error
    serve(folder, host=host, port=port, password=password, most=most, open_page=open, on_ready=_say_where)


def _say_where(address: str) -> None:
    print(f"The studio is at {address}", flush=True)
