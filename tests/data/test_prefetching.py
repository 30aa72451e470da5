"""Reading ahead: order, position, errors, and the end of the thread."""

import gc
import itertools
import threading
import time

import jax
import numpy as np
import pytest

from jaxnets import data
from jaxnets.errors import InputError


class Counter:
    """An iterator with a position, which remembers whether it was closed."""

    def __init__(self, stop=None):
        self.position, self.stop, self.closed = 0, stop, False

    def __iter__(self):
        return self

    def __next__(self):
        if self.position == self.stop:
            raise StopIteration
        self.position += 1
        return self.position - 1

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]

    def close(self):
        self.closed = True


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "jaxnets-prefetch"]


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within ten seconds"
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    wait_until(lambda: not threads())


def test_batches_come_in_order_from_a_background_thread():
    callers = set()

    def put(number):
        callers.add(threading.current_thread())
        return number * 10

    assert list(data.prefetch(Counter(5), put)) == [0, 10, 20, 30, 40]
    assert threading.current_thread() not in callers


@pytest.mark.parametrize("depth", [1, 3])
def test_it_runs_ahead_as_far_as_its_depth_and_one_more(depth):
    source = Counter()
    ahead = data.prefetch(source, lambda batch: batch, depth)
    for taken in range(1, 4):
        assert next(ahead) == taken - 1
        wait_until(lambda: source.position == taken + depth + 1)  # noqa: B023
        time.sleep(0.02)
        assert source.position == taken + depth + 1
    ahead.close()


def test_its_position_is_that_of_the_last_batch_handed_out():
    source = Counter()
    ahead = data.prefetch(source, lambda batch: batch, 2)
    assert ahead.get_state() == {"position": 0}
    for taken in range(1, 6):
        next(ahead)
        wait_until(lambda: source.position > taken)  # noqa: B023
        assert ahead.get_state() == {"position": taken}
    ahead.close()


def test_setting_a_position_drops_what_was_fetched_ahead():
    ahead = data.prefetch(Counter(9), lambda batch: batch, 3)
    assert list(itertools.islice(ahead, 4)) == [0, 1, 2, 3]
    ahead.set_state({"position": 2})
    assert ahead.get_state() == {"position": 2}
    assert list(ahead) == [2, 3, 4, 5, 6, 7, 8]
    ahead.set_state({"position": 7})  # also after the end
    assert list(ahead) == [7, 8]


def test_training_batches_resume_exactly_through_it():
    source = data.ArraySource(np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1), [0] * 20, ["a"])

    def batches():
        return data.prefetch(data.train_batches(source, 3, seed=1), jax.device_put, 2)

    def images(batches, count):
        return [batch["image"].ravel().tolist() for batch in itertools.islice(batches, count)]

    whole, first, second = batches(), batches(), batches()
    wanted = images(whole, 12)
    assert images(first, 5) == wanted[:5]
    time.sleep(0.05)  # it is ahead by now
    second.set_state(first.get_state())
    assert images(second, 7) == wanted[5:]
    assert isinstance(next(second)["image"], jax.Array)
    for one in (whole, first, second):
        one.close()


def test_errors_of_the_source_come_as_they_are_after_the_batches_before_them():
    error = InputError("no such image")

    def source():
        yield 1
        yield 2
        raise error

    ahead = data.prefetch(source(), lambda batch: batch, 3)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(InputError) as caught:
        next(ahead)
    assert caught.value is error
    assert list(ahead) == []


def test_errors_of_putting_come_as_they_are():
    def put(batch):
        raise RuntimeError(f"no room for {batch}")

    with pytest.raises(RuntimeError, match="no room for 0"):
        next(data.prefetch(Counter(), put))


def test_closing_ends_the_thread_and_closes_the_source():
    source = Counter()
    ahead = data.prefetch(source, lambda batch: batch)
    next(ahead)
    assert len(threads()) == 1
    ahead.close()
    assert threads() == []
    assert source.closed
    assert list(ahead) == []
    ahead.close()


def test_dropping_it_ends_the_thread():
    ahead = data.prefetch(Counter(), lambda batch: batch)
    next(ahead)
    assert len(threads()) == 1
    del ahead
    gc.collect()
    wait_until(lambda: not threads())


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_dropping_it_in_a_cycle_ends_the_thread_when_that_very_thread_collects_it():
    dropped = threading.Event()

    def put(number):
        if number == 1:
            assert dropped.wait(10)
            gc.collect()
        return number

    gc.disable()
    try:
        ahead = data.prefetch(Counter(), put)
        assert next(ahead) == 0
        ahead.itself = ahead
        del ahead
        dropped.set()
        wait_until(lambda: not threads())
    finally:
        gc.enable()


def test_an_iterator_without_a_position_cannot_tell_one():
    ahead = data.prefetch(iter([1, 2]), lambda batch: batch)
    assert next(ahead) == 1
    with pytest.raises(InputError, match="list_iterator"):
        ahead.get_state()
    ahead.close()


def test_a_depth_below_one_is_refused():
    with pytest.raises(InputError, match="depth"):
        data.prefetch(Counter(), lambda batch: batch, 0)
