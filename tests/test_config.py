from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipact.config import load_toml, override, parse, to_table
from clipact.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    lr: float = 1e-3
    steps: int = 10


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    size: tuple[int, int] = (8, 8)
    mean: tuple[float, ...] = (0.5,)
    mode: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    maybe: int | None = None
    on: bool = False
    where: Path = Path()


def test_a_table_becomes_the_dataclass_it_describes():
    table = {"name": "x", "size": [4, 6], "mean": [0, 1.5], "inner": {"lr": 1}, "on": True, "where": "a/b"}
    assert parse(Outer, table) == Outer(
        name="x", size=(4, 6), mean=(0.0, 1.5), inner=Inner(lr=1.0), on=True, where=Path("a/b")
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"name": "x", "sise": [1, 2]}, "did you mean 'size'"),
        ({"name": "x", "inner": {"learning": 1}}, "inner.learning"),
        ({"name": "x", "inner": {"lr": "fast"}}, "inner.lr is 'fast' (str); it takes float"),
        ({"name": "x", "size": [1, 2, 3]}, "size has 3 values; it takes 2"),
        ({"name": "x", "mode": "c"}, "mode is 'c'"),
        ({"name": 3}, "name is 3 (int); it takes str"),
        ({"name": "x", "maybe": "no"}, "maybe is 'no'"),
        ({"name": "x", "maybe": True}, "maybe is True (bool); it takes int"),
        ({}, "missing name"),
    ],
)
def test_what_is_wrong_is_named(table, said):
    with pytest.raises(ConfigError) as caught:
        parse(Outer, table)
    assert said in str(caught.value)


@given(
    st.builds(
        Outer,
        name=st.text(),
        size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
        mean=st.lists(st.floats(allow_nan=False), max_size=3).map(tuple),
        mode=st.sampled_from(["a", "b"]),
        inner=st.builds(Inner, lr=st.floats(allow_nan=False), steps=st.integers()),
        maybe=st.none() | st.integers(),
        on=st.booleans(),
    )
)
def test_to_table_and_parse_are_inverse(instance):
    assert parse(Outer, to_table(instance)) == instance


def test_override_reads_toml_values_and_leaves_the_table_alone():
    table = {"inner": {"steps": 1}}
    assert override(table, "inner.lr=1e-4") == {"inner": {"steps": 1, "lr": 1e-4}}
    assert override(table, "name = plain words") == {"inner": {"steps": 1}, "name": "plain words"}
    assert override(table, "size=[1, 2]")["size"] == [1, 2]
    assert table == {"inner": {"steps": 1}}
    for wrong in ("lr", "=1", "a..b=1"):
        with pytest.raises(ConfigError):
            override(table, wrong)
    with pytest.raises(ConfigError, match="holds a value"):
        override({"a": 1}, "a.b=2")


def test_a_file_that_is_not_toml_is_named(tmp_path):
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml is not valid TOML"):
        load_toml(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match="No such file"):
        load_toml(tmp_path / "none.toml")
