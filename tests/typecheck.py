"""How types are enforced while tests run: with an int where a float is wanted, as Python's own typing rules say."""

from beartype import BeartypeConf, beartype

_enforce = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function):
    """Enforce a function's annotations, except on the command line, which names types that it does not import."""
    return function if function.__module__.startswith("phosphene.cli") else _enforce(function)
