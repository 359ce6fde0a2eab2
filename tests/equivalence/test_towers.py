"""Every tower against the module that it stands for, with the same random weights; the benchmark has them full size."""

import pytest

from tests.equivalence.pairs import SMALL, differences


@pytest.mark.parametrize("name", SMALL)
def test_a_tower_equals_its_reference(name, tmp_path):
    found = differences(SMALL[name](tmp_path))
    assert found
    assert max(found.values()) <= 1e-5, found
