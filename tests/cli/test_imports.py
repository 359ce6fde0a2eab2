import gc
import sys

import pytest

from clipact.cli.classify import quick_imports


@pytest.mark.parametrize("collecting", [True, False])
def test_the_interpreter_is_left_as_it_was(collecting):
    interval, before = sys.getswitchinterval(), gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with quick_imports():
            assert not gc.isenabled()
            assert sys.getswitchinterval() < interval
        assert gc.isenabled() == collecting
        assert sys.getswitchinterval() == pytest.approx(interval)
    finally:
        (gc.enable if before else gc.disable)()
        gc.unfreeze()
