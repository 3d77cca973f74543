"""`phosphene models`, `layers`, `looks` and `samples`: what there is to choose from."""

from __future__ import annotations

import re
import sys
from typing import Annotated

from cyclopts import App, Parameter
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from phosphene.networks.cards import DEFAULT_MODEL

models_app = App(name="models", help="List models, fetch their weights, or check what they recognise.")


def add_to(app: App) -> None:
    """Register the commands."""
    app.command(models_app)
    app.command(layers)
    app.command(looks)
    app.command(samples)


@models_app.default
def models() -> None:
    """List the models that have a card; every classification model of torchvision and timm works too."""
    from phosphene.networks import weights
    from phosphene.networks.registry import named

    table = Table("name", "parameters", "weights", "licence", "layers, from strokes to objects")
    for card in named():
        here = "here" if weights.is_here(card) else "to download"
        licence = re.split(r"[:;]", card.licence)[0]
        table.add_row(card.name, _number(card.parameters), here, licence, " ".join(card.layers))
    _show(table)
    print("Licences in full: `phosphene models fetch NAME`.")
    print("Also: every torchvision classification model by its name, and every timm model as timm/NAME.")


@models_app.command
def fetch(name: str, /, *, top: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Download a model's weights, if necessary, and print where they are, and their licence.

    Parameters
    ----------
    name
        A model's name.
    top
        Including the classifier, where there is a smaller file without it.
    """
    from phosphene.networks import weights
    from phosphene.networks.registry import card

    file = weights.fetch(card(name), top)
    print(f"licence: {card(name).licence}", file=sys.stderr)
    print(file)


@models_app.command
def check(name: str, /) -> int:
    """Load a model's weights and let it name the sample photographs; fails if it gets most of them wrong.

    Parameters
    ----------
    name
        A model's name.
    """
    from phosphene.recognise import recognise_samples

    table = Table("photograph", "the network says", "sure", "known")
    answers = recognise_samples(name)
    for answer in answers:
        table.add_row(answer.sample, answer.label, f"{answer.probability:.0%}", "yes" if answer.known else "no")
    _show(table)
    judged = [answer.known for answer in answers if answer.counts]
    return 0 if 2 * sum(judged) > len(judged) else 1


def layers(
    model: str = DEFAULT_MODEL,
    /,
    *,
    size: int = 512,
    all: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """List a model's layers: names, channels, stride, receptive field, output size, and multiply-adds (MACs) so far.

    Parameters
    ----------
    model
        A model's name.
    size
        Side in px of the square image for which output sizes and arithmetic are computed.
    all
        Every operation, not only the last of each block.
    """
    from phosphene.networks.inspect import layer_table
    from phosphene.networks.registry import introduce

    table = Table("layer", "other names", "channels", "stride", "receptive field", "output", "MACs so far")
    for row in layer_table(introduce(model), size, every=all):
        table.add_row(*row)
    _show(table)


def looks(model: str | None = None, /) -> None:
    """List the looks of a model, or of all models.

    Parameters
    ----------
    model
        A model's name.
    """
    from phosphene.errors import UnknownNameError
    from phosphene.recipe.looks import DEFAULT_LOOK, LOOKS

    if model is not None and model not in LOOKS:
        raise UnknownNameError("model with looks", model, LOOKS, f"{', '.join(LOOKS)} have looks.")
    table = Table("model", "look", "layers", "settings")
    for name in [model] if model else LOOKS:
        for look, settings in LOOKS[name].items():
            others = ", ".join(f"{key}={value}" for key, value in settings.items() if key != "layers")
            marked = f"{look} (default)" if look == DEFAULT_LOOK else look
            table.add_row(name, marked, " ".join(settings["layers"]), others)
    _show(table)


def samples() -> None:
    """List the sample photographs, which every command accepts as sample:NAME."""
    from phosphene.imagefile import SAMPLES

    table = Table("name", "what it is, and whose")
    for name, description in SAMPLES.items():
        table.add_row(f"sample:{name}", description)
    _show(table)


def _number(parameters: int | None) -> str:
    return "" if parameters is None else f"{parameters:,}"


def _show(table: Table) -> None:
    """Print a table. Nothing of it is cut off: people copy names, the first column, which are not wrapped either."""
    table.box = SIMPLE_HEAD
    for column in table.columns:
        column.overflow = "fold"
        column.min_width = max(map(len, str(column.header).split()))
    names = table.columns[0]
    names.no_wrap, names.min_width = True, max(map(len, [str(names.header), *map(str, names.cells)]))
    console = Console()
    console.width = console.width if console.is_terminal else 160
    console.print(table)
