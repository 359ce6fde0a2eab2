from hypothesis import given
from hypothesis import strategies as st

from clipact.data.fingerprint import seed_from
from clipact.train.loader import EpochSampler, SamplePosition


@given(st.integers(1, 40), st.integers(0, 99), st.integers(0, 120), st.integers(0, 60))
def test_any_stretch_is_a_part_of_the_one_stream(count, seed, start, length):
    whole = list(EpochSampler(count, seed=seed).positions(0, start + length))
    assert list(EpochSampler(count, seed=seed).positions(start, start + length)) == whole[start:]


@given(st.integers(1, 40), st.integers(0, 99))
def test_each_epoch_has_every_entry_once(count, seed):
    places = list(EpochSampler(count, seed=seed).positions(0, 3 * count))
    for epoch in range(3):
        mine = [position.example for position in places if position.epoch == epoch]
        assert sorted(mine) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(seed, epoch):
        return [position.example for position in EpochSampler(50, seed=seed).positions(50 * epoch, 50 * (epoch + 1))]

    orders = [order(0, 0), order(0, 1), order(1, 0)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[i + 1 :])
    assert list(EpochSampler(3, seed=0, shuffled=False).positions(2, 5)) == [
        SamplePosition(0, 2),
        SamplePosition(1, 0),
        SamplePosition(1, 1),
    ]


@given(st.lists(st.integers() | st.text(), max_size=3), st.lists(st.integers() | st.text(), max_size=3))
def test_a_seed_tells_parts_apart_and_fits_into_63_bits(one, other):
    assert (seed_from(*one) == seed_from(*other)) == (one == other)
    assert 0 <= seed_from(*one) < 2**63
