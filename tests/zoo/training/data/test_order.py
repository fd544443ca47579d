import itertools
import math
import pickle
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.training.data.order import PERIOD_ROWS, Key, Order, Permutation, seed_of
from zoo_core.errors import DataError


def rows_of(order, steps):
    return [key for step in range(steps) for key in order.rows(step)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_a_permutation_gives_every_value_once(size, seed, key):
    values = Permutation(size, seed, key)(np.arange(size))
    assert sorted(values.tolist()) == list(range(size))


@settings(max_examples=30, deadline=None)
@given(st.integers(2**20, 2**40), st.integers(0, 2**32 - 1))
def test_values_of_a_huge_permutation_are_within_it_and_differ(size, seed):
    positions = np.linspace(0, size - 1, 2000, dtype=np.int64)
    values = Permutation(size, seed)(positions)
    assert values.min() >= 0 and values.max() < size and len(set(values.tolist())) == 2000


def test_a_permutation_is_computed_value_by_value():
    permutation = Permutation(1000, 3, 1)
    at_once = permutation(np.arange(1000))
    assert [int(permutation(np.array([place]))[0]) for place in range(0, 1000, 7)] == at_once[::7].tolist()


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_orders_of_a_few_rows_are_equally_likely(size):
    count = math.factorial(size)
    seen = Counter(tuple(Permutation(size, seed, 7)(np.arange(size)).tolist()) for seed in range(60 * count))
    chi = sum((seen[order] - 60) ** 2 / 60 for order in itertools.permutations(range(size)))
    assert abs(chi - (count - 1)) < 5 * math.sqrt(2 * (count - 1))


def test_each_row_comes_at_each_place_equally_often():
    size, seeds = 37, 3000
    places = np.arange(size)
    table = np.zeros((size, size))
    for seed in range(seeds):
        table[places, Permutation(size, seed)(places)] += 1
    expected = seeds / size
    chi, degrees = ((table - expected) ** 2 / expected).sum(), (size - 1) ** 2
    assert abs(chi - degrees) < 5 * math.sqrt(2 * degrees)


def test_neighbours_do_not_stay_neighbours():
    values = Permutation(10_000, 1)(np.arange(10_000))
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.05
    assert (np.abs(np.diff(values)) == 1).sum() < 10


def test_seeds_depend_on_every_key_in_its_place():
    seeds = {seed_of(*keys) for keys in itertools.product((0, 1), (0, 1), (0, 1), ("", "a"))}
    assert len(seeds) == 16 and all(0 <= seed < 2**63 for seed in seeds)


def test_the_order_does_not_change_between_versions():
    assert Permutation(10, 0, 1)(np.arange(10)).tolist() == [9, 4, 3, 6, 1, 0, 7, 8, 2, 5]
    assert [key.row for key in Order([100], [1.0], batch=8, seed=5).rows(20)] == [66, 25, 32, 86, 20, 23, 26, 94]


def test_another_process_has_the_same_order():
    program = "from zoo.training.data.order import Order; print(Order([50, 70], [1, 2], batch=12, seed=5).rows(9))"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(Order([50, 70], [1, 2], batch=12, seed=5).rows(9))


@pytest.mark.parametrize("shuffle", ["full", "window", "none"])
@pytest.mark.parametrize(("size", "batch"), [(12, 4), (13, 4), (100, 7), (5, 5)])
def test_no_row_comes_twice_in_a_pass(shuffle, size, batch):
    blocks = [[size // 3, size - size // 3]]
    order = Order([size], [1.0], batch=batch, seed=1, shuffle=shuffle, blocks=blocks, window_blocks=1)
    steps = order.steps_per_epoch
    assert steps == size // batch
    for epoch in range(3):
        keys = [key for step in range(epoch * steps, (epoch + 1) * steps) for key in order.rows(step)]
        assert {key.epoch for key in keys} == {epoch}
        assert len({key.row for key in keys}) == steps * batch
        assert {key.row for key in keys} <= set(range(size))


@pytest.mark.parametrize("shuffle", ["full", "none"])
def test_each_pass_leaves_out_other_rows(shuffle):
    order = Order([13], [1.0], batch=4, seed=1, shuffle=shuffle)
    left = [
        set(range(13)) - {key.row for step in range(e * 3, e * 3 + 3) for key in order.rows(step)} for e in range(40)
    ]
    assert set.union(*left) == set(range(13))


def test_passes_have_different_orders_and_so_have_seeds():
    orders = [[key.row for key in rows_of(Order([64], [1.0], batch=8, seed=seed), 16)] for seed in (0, 1)]
    assert orders[0] != orders[1] and orders[0][:64] != orders[0][64:]


def test_without_shuffling_rows_come_as_they_lie():
    order = Order([10], [1.0], batch=4, seed=1, shuffle="none")
    assert [key.row for key in rows_of(order, 5)] == [*range(10), *range(10)]


def test_a_window_mixes_the_rows_of_a_few_blocks():
    order = Order([24], [1.0], batch=1, seed=4, shuffle="window", blocks=[[4] * 6], window_blocks=2)
    windows = set()
    for epoch in range(12):
        rows = [order.rows(step)[0].row for step in range(24 * epoch, 24 * epoch + 24)]
        in_epoch = [frozenset(row // 4 for row in rows[start : start + 8]) for start in (0, 8, 16)]
        assert all(len(window) == 2 for window in in_epoch) and frozenset.union(*in_epoch) == set(range(6))
        windows |= set(in_epoch)
    assert len(windows) > 8  # each pass pairs other blocks
    assert [row // 4 for row in rows[:8]] != sorted(row // 4 for row in rows[:8])  # and their rows are mixed


def test_blocks_of_a_window_may_have_any_length():
    lengths = [5, 1, 9, 4, 7, 6, 1]
    order = Order([33], [1.0], batch=3, seed=4, shuffle="window", blocks=[lengths], window_blocks=3)
    of_row = np.repeat(np.arange(7), lengths)
    for epoch in range(8):
        rows = [key.row for step in range(11 * epoch, 11 * epoch + 11) for key in order.rows(step)]
        assert sorted(rows) == list(range(33))
        places = [np.flatnonzero(of_row[rows] == block) for block in range(7)]
        overlaps = sum(
            len({int(p) for p in range(a.min(), a.max() + 1)} & {*b.tolist()}) > 0 for a in places for b in places
        )
        assert overlaps <= 7 + 3 * 2 * 2 + 2  # blocks meet in their own window alone


def test_a_period_gives_each_data_set_its_share_exactly():
    weights, batch = [5.0, 3.0, 0.01], 128
    order = Order([1000, 77, 5], weights, batch=batch, seed=3)
    steps = PERIOD_ROWS // batch
    for period in range(2):
        keys = [key for step in range(period * steps, (period + 1) * steps) for key in order.rows(step)]
        counts = Counter(key.dataset for key in keys)
        for number, weight in enumerate(weights):
            assert abs(counts[number] - PERIOD_ROWS * weight / sum(weights)) < 1
        in_batches = [Counter(key.dataset for key in order.rows(step))[1] for step in range(20)]
        assert len(set(in_batches)) > 3  # shares of a batch vary, as rows drawn by chance do


def test_each_data_set_of_a_mixture_is_passed_over_evenly():
    order = Order([90, 7], [2.0, 1.0], batch=30, seed=3)
    seen = Counter(rows_of(order, 3 * (PERIOD_ROWS // 30)))
    assert set(seen.values()) == {1}
    epochs = [Counter(key.epoch for key in seen if key.dataset == dataset) for dataset in (0, 1)]
    for size, counts in zip((90, 7), epochs, strict=True):
        assert set(list(counts.values())[:-1]) == {size}
        assert list(counts) == sorted(counts)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.2, 5)), min_size=2, max_size=4),
    st.integers(1, 12),
    st.integers(0, 99),
    st.sampled_from(["full", "none"]),
)
def test_a_mixture_is_what_counting_row_by_row_gives(datasets, batch, seed, shuffle):
    sizes, weights = zip(*datasets, strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.training.data.order.PERIOD_ROWS", 64)
        order = Order(sizes, weights, batch=batch, seed=seed, shuffle=shuffle)
    period = max(1, 64 // batch)
    passed = [[] for _ in sizes]
    for number in range(3):
        in_period = Counter()
        for step in range(number * period, (number + 1) * period):
            for key in order.rows(step):
                in_period[key.dataset] += 1
                passed[key.dataset].append((key.epoch, key.row))
        for place, weight in enumerate(weights):
            assert abs(in_period[place] - period * batch * weight / sum(weights)) < 1
    for size, rows in zip(sizes, passed, strict=True):
        for epoch, start in enumerate(range(0, len(rows), size)):
            one_pass = rows[start : start + size]
            assert {key[0] for key in one_pass} == {epoch} and len(set(one_pass)) == len(one_pass)
            assert shuffle == "full" or [key[1] for key in one_pass] == list(range(len(one_pass)))


def test_ranks_share_the_batch_that_one_process_takes():
    order = Order([50, 70], [1, 2], batch=12, seed=5)
    for step in (0, 7, 5000):
        whole = order.rows(step)
        for count in (2, 4):
            part = 12 // count
            shared = [order.rows(step, rank * part, (rank + 1) * part) for rank in range(count)]
            assert list(itertools.chain(*shared)) == whole


def test_any_step_can_be_asked_for_first():
    fresh, used = (Order([50, 70], [1, 2], batch=12, seed=5) for _ in range(2))
    every = [used.rows(step) for step in range(300)]
    for step in (299, 17, 0, 150):
        assert pickle.loads(pickle.dumps(fresh)).rows(step) == every[step]


def test_an_epoch_of_a_mixture_is_that_of_the_first():
    order = Order([1000, 50], [1.0, 1.0], batch=10, seed=0)
    keys = rows_of(order, order.steps_per_epoch)
    assert abs(sum(key.dataset == 0 for key in keys) - 1000) < 60


def test_rows_are_plain_keys():
    (key,) = Order([3], [1.0], batch=1, seed=0).rows(4)
    assert isinstance(key, Key) and all(type(part) is int for part in key)


@pytest.mark.parametrize(
    ("sizes", "weights", "batch", "message"),
    [
        ([40], [1.0], 64, "0 steps: 40 samples do not fill a batch of 64; set batch.size to 40 at most"),
        ([0], [1.0], 4, "data set 0 has no sample"),
        ([5, 0], [1.0, 1.0], 4, "data set 1 has no sample"),
        ([5, 5], [1.0, 1e-9], 4, "data set 1 has a share of 1.0e-09, which is none of 65,536 rows; raise its weight"),
    ],
)
def test_what_gives_no_step_is_refused(sizes, weights, batch, message):
    with pytest.raises(DataError) as error:
        Order(sizes, weights, batch=batch, seed=0)
    assert str(error.value) == message
