"""How types are enforced while tests run: with an int where a float is wanted, as Python's own typing rules say."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
