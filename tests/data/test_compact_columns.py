from hypothesis import given
from hypothesis import strategies as st

from clipact.data.compact_columns import DigestNumbers, TextColumn
from clipact.data.first_lines import FirstLine, FirstLines, Said

KEYS = st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 200) | st.floats(0, 9))


@given(st.lists(KEYS, max_size=300))
def test_keys_have_the_numbers_that_a_dict_gives_them(keys):
    numbers, known = DigestNumbers(), {}
    for key in keys:
        assert numbers.number(*key) == known.setdefault(repr(key), len(known))
        assert len(numbers) == len(known)


def test_keys_keep_their_numbers_while_the_table_grows():
    numbers = DigestNumbers()
    for _ in range(2):
        assert [numbers.number("key", i) for i in range(5000)] == list(range(5000))


@given(st.lists(st.text(), max_size=20))
def test_a_column_gives_every_text_back(texts):
    column = TextColumn()
    for text in texts:
        column.append(text)
    assert [column[i] for i in range(len(column))] == texts


@given(st.lists(st.tuples(KEYS, st.sampled_from(["x", "y", None])), max_size=100))
def test_the_first_line_is_the_one_that_a_dict_keeps(rows):
    firsts, known = FirstLines(), {}
    for line, (key, label) in enumerate(rows, start=2):
        said = Said("train", label, ())
        expected = known.setdefault(repr(key), FirstLine(len(known), line, said))
        assert firsts.setdefault(key, line=line, said=said) == expected
        assert len(firsts) == len(known)
