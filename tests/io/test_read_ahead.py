"""Read-ahead: in order, errors in their turn, no further than asked for; the engines' stream has more tests."""

import threading

import pytest

from femur3d.io.read_ahead import read_ahead


def test_the_next_item_is_made_while_this_one_is_used():
    made, second = [], threading.Event()

    def make(item):
        made.append(item)
        if item == 2:
            second.set()
        return 10 * item

    stream = read_ahead(make, iter([1, 2, 3, 4]))
    assert next(stream).result() == 10
    assert second.wait(10)
    stream.close()
    assert made == [1, 2]  # 3 is not made before 2 is asked for


def test_an_error_is_raised_in_its_turn_and_the_others_are_made_all_the_same():
    def make(item):
        return 1 / item

    first, bad, last = read_ahead(make, [1, 0, 2], ahead=3)
    assert first.result() == 1
    with pytest.raises(ZeroDivisionError):
        bad.result()
    assert last.result() == 0.5


def test_nothing_to_make():
    assert list(read_ahead(str, [])) == []
