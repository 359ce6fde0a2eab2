"""What every label, template and caption passes at the door: encoding mended, one spelling of each character.

Control and invisible characters are refused, not dropped: they make two labels that look alike and are not.
"""

import unicodedata

from clipact.errors import LabelError

_JOINERS = "\u200c\u200d"  # some scripts and many emoji cannot be written without them


def clean(text: str) -> str:
    """The text with its encoding mended (ftfy), in NFC, with single spaces; LabelError when nothing is left."""
    mended = text.strip()
    if not mended.isascii() or "&" in mended:
        import ftfy  # 80 ms, and plain ASCII has nothing to mend

        # What cannot be seen is left in, to be refused below.
        mended = ftfy.fix_text(mended, remove_control_chars=False, remove_terminal_escapes=False, fix_line_breaks=False)
    if not mended.isprintable():
        _refuse_invisible(mended)
    if "\ufffd" in mended:
        raise LabelError(f"{text!r} is not valid UTF-8; save the file, or set the terminal, to UTF-8")
    mended = " ".join(mended.split())
    if not mended:
        raise LabelError(f"{text!r} is empty; write a word or leave it out")
    return mended


def _refuse_invisible(text: str) -> None:
    for character in text:
        if unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"} and character not in _JOINERS:
            name = unicodedata.name(character, "a control character")
            raise LabelError(f"{text!r} holds U+{ord(character):04X} ({name}), which cannot be seen; remove it")
