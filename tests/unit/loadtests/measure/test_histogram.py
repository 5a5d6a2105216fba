"""Percentiles against sorted values, the form against the library, merging against the whole."""

from __future__ import annotations

import random
from array import array

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.measure.histogram import FOLD, TOP, Histogram, bucket_of, micros, top_of

values = st.integers(min_value=0, max_value=TOP)


def filled(us: list[int]) -> Histogram:
    histogram = Histogram()
    for value in us:
        histogram.add(value)
    return histogram


@given(values)
def test_a_bucket_holds_its_value_to_three_digits(us: int) -> None:
    top = top_of(bucket_of(us))
    assert us <= top <= max(us + 1, us * 1.001) + 1
    assert bucket_of(top) == bucket_of(us)
    assert bucket_of(top + 1) == bucket_of(us) + 1


@given(values)
def test_buckets_are_the_librarys(us: int) -> None:
    whole = HdrHistogram(1, TOP, 3)
    assert bucket_of(us) == whole.get_counts_array_index(us)
    assert top_of(bucket_of(us)) == whole.get_highest_equivalent_value(us)


@given(st.lists(values, min_size=1, max_size=300))
def test_percentiles_are_those_of_the_sorted_values(us: list[int]) -> None:
    histogram = filled(us)
    permilles = (1, 500, 750, 900, 950, 990, 999, 1000)
    ranked = sorted(us)
    for permille, found in zip(permilles, histogram.percentiles(permilles), strict=True):
        true = ranked[max(1, -(-len(us) * permille // 1000)) - 1]
        assert true <= found <= true * 1.001 + 1
    assert histogram.percentiles((1000,)) == [max(us)]


@given(st.lists(values, min_size=1, max_size=300), values)
def test_above_counts_values_beyond_a_limit(us: list[int], limit: int) -> None:
    true = sum(value > top_of(bucket_of(limit)) for value in us)
    assert filled(us).above(limit) == true


@pytest.mark.parametrize("count", [1, 100, FOLD - 1, FOLD, 3 * FOLD])
def test_the_encoded_form_says_the_same(count: int) -> None:
    rng = random.Random(count)
    us = [int(rng.lognormvariate(11, 1)) for _ in range(count)]
    histogram = filled(us)
    decoded = HdrHistogram.decode(histogram.encode())
    assert decoded.get_total_count() == count
    counted = [
        (bucket, n)
        for bucket in range(decoded.counts_len)
        if (n := decoded.get_count_at_index(bucket))
    ]
    assert counted == histogram.buckets()
    latency = histogram.latency()
    assert latency is not None
    assert latency.count == count
    assert latency.mean == pytest.approx(sum(us) / count / 1000)
    assert (latency.min, latency.max) == (min(us) / 1000, max(us) / 1000)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_split_merges_to_the_whole(data: st.DataObject) -> None:
    """Sizes on both sides of the place where values become counts."""
    seed = data.draw(st.integers(0, 2**32))
    sizes = data.draw(
        st.lists(st.sampled_from([0, 1, 7, 500, FOLD - 1, FOLD + 3]), min_size=1, max_size=5)
    )
    rng = random.Random(seed)
    parts = [[min(TOP, int(rng.lognormvariate(9, 2.5))) for _ in range(size)] for size in sizes]
    whole = filled([us for part in parts for us in part])
    merged = Histogram()
    for place in data.draw(st.permutations(range(len(parts)))):
        merged.merge(Histogram.of(filled(parts[place]).state()))
    assert merged.state() == whole.state()
    assert (len(merged), merged.total) == (len(whole), whole.total)
    assert (merged.lowest, merged.highest) == (whole.lowest, whole.highest)
    assert merged.buckets() == whole.buckets()


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    us = [random.Random(1).randrange(TOP) for _ in range(2 * FOLD)]
    at_once = Histogram()
    at_once.extend(array("I", us))
    assert at_once.state() == filled(us).state()


def test_times_are_held_within_its_range() -> None:
    assert micros(-0.5) == 0
    assert micros(0.0000015) == 2
    assert micros(1e9) == TOP


def test_without_values() -> None:
    empty = Histogram()
    assert empty.latency() is None
    assert empty.above(5) == 0
    with pytest.raises(ValueError, match="without values"):
        empty.percentiles((500,))
