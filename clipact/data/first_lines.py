"""Where each key of a table first stands and what is said of it there: about 60 bytes a key, however long the table."""

from array import array
from typing import NamedTuple

from clipact.data.compact_columns import DigestNumbers


class Said(NamedTuple):
    """What a line says of its sample, in which other lines on the same sample have to agree."""

    split: str
    label: str | None
    extra_labels: tuple[str, ...]


class FirstLine(NamedTuple):
    """The first line under a key: the key's number, the line's, and what it says."""

    number: int
    line: int
    said: Said


class FirstLines:
    """The first line under each key, as a dict would hold them.

    What lines say is kept once for all lines that say the same: of labels there are few.
    """

    def __init__(self) -> None:
        self._numbers = DigestNumbers()
        self._lines = array("Q")
        self._codes = array("I")  # by the number of the key; what they stand for is in _said
        self._said: list[Said] = []
        self._code_of: dict[Said, int] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def setdefault(self, key: tuple[object, ...], *, line: int, said: Said) -> FirstLine:
        """Return the first line under the key, which is this one where the key is new.

        Args:
            key: Values that `repr` tells apart.
            line: The number of the line in its file.
            said: What the line says.
        """
        number = self._numbers.number(*key)
        if number == len(self._lines):
            code = self._code_of.setdefault(said, len(self._said))
            if code == len(self._said):
                self._said.append(said)
            self._lines.append(line)
            self._codes.append(code)
        return FirstLine(number, self._lines[number], self._said[self._codes[number]])
