"""The package's annotations in a test run, shapes included: what `beartype` makes of them."""

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int may stand for a float


def checked(function):
    """The function with its arguments and its result checked, but for constructors.

    A dataclass registered with JAX is rebuilt with whatever a transformation has for its arrays:
    shapes, axes, placeholders.
    """
    return function if function.__name__ == "__init__" else _checked(function)
