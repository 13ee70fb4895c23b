"""How near two results have to be."""

import numpy as np

TOLERANCE = 1e-4


def assert_close(ours, theirs):
    """Map by map, and relative to the map's own maximum: a map of zeros has to be one."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    maps = tuple(range(1, theirs.ndim))
    highest = np.abs(theirs).max(maps)
    assert highest.any()
    errors = np.abs(ours - theirs).max(maps)
    relative = errors / np.where(highest > 0, highest, 1)
    print("relative errors", *(f"{error:.1e}" for error in relative))
    assert (errors <= TOLERANCE * highest).all()
