import time

import pytest

from fgvce_jax.clock import Clock


def test_blocks_of_a_name_add_up_and_waiting_for_items_counts():
    clock = Clock()
    for _ in range(2):
        with clock("search"):
            time.sleep(0.02)

    def slow():
        for item in range(3):
            time.sleep(0.02)
            yield item

    found = []
    for item in clock.each("reading", slow()):
        time.sleep(0.05)  # of whoever uses it
        found.append(item)
    assert found == [0, 1, 2]
    with pytest.raises(KeyError), clock("failed"):
        raise KeyError
    clock.add({"search": 1.0})
    assert list(clock.seconds) == ["search", "reading", "failed"]
    assert 1.04 <= clock.seconds["search"] < 1.3
    assert 0.06 <= clock.seconds["reading"] < 0.15
    taken = clock.take()
    assert taken["search"] > 1
    assert clock.seconds == {}
