"""The door for text: what is mended, what is refused."""

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipact.errors import LabelError
from clipact.prompts import clean


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  drink   water \n", "drink water"),
        ("caf\u00c3\u00a9", "café"),  # UTF-8 read as Latin-1
        ("cafe\u0301", "café"),  # decomposed
        ("rock &amp; roll", "rock & roll"),
        ("drink\u00a0water", "drink water"),
        ("\u2018high\u2019 five", "'high' five"),
        ("跑步", "跑步"),
        ("👩‍🍳 cook", "👩‍🍳 cook"),  # held together by a joiner
    ],
)
def test_text_is_mended(text, expected):
    assert clean(text) == expected


@pytest.mark.parametrize("text", ["", "  ", "\n\t", "\u00a0"])
def test_nothing_is_refused(text):
    with pytest.raises(LabelError, match="is empty"):
        clean(text)


@pytest.mark.parametrize("hidden", ["\x00", "\x1b", "\t", "\n", "\u200b", "\u202e", "\u00ad", "\ufeff", "\u2028"])
def test_what_cannot_be_seen_is_refused_by_its_code(hidden):
    with pytest.raises(LabelError, match=f"U\\+{ord(hidden):04X}"):
        clean(f"dr{hidden}ink")


def test_bytes_that_were_not_utf8_are_refused():
    with pytest.raises(LabelError, match="UTF-8"):
        clean(b"caf\xe9".decode("utf-8", "surrogateescape"))


@settings(deadline=None)
@given(st.text())
def test_whatever_passes_can_be_written_seen_and_compared(text):
    try:
        cleaned = clean(text)
    except LabelError:
        return
    assert cleaned == cleaned.strip() != ""
    assert unicodedata.normalize("NFC", cleaned) == cleaned
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned


def test_plain_words_need_no_heavy_import():
    code = (
        "import sys; from clipact.prompts import PromptSet, parse_labels;"
        "PromptSet.load('action').sentences(parse_labels(['drink,UseLaptop', 'daily-living:ten', 'hmdb51'][:1]));"
        "print({'torch', 'numpy', 'ftfy', 'typer', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
