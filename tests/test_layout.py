"""The layout holds: one concept a file, one name a file, one name a class."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "clipact"
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]


def _repeated(names):
    return {name: places for name, places in names.items() if len(places) > 1}


def test_no_two_files_outside_the_command_line_have_one_name():
    places = defaultdict(list)
    for path in FILES:
        if path.parent.name != "cli":
            places[path.name].append(str(path.relative_to(PACKAGE)))
    assert not _repeated(places)


def test_no_two_files_differ_by_a_plural():
    names = {path.stem for path in FILES if path.parent.name != "cli"}
    assert not [name for name in names if name + "s" in names]


def test_every_public_class_stands_once():
    places = defaultdict(list)
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    assert not _repeated(places)


def test_every_package_says_what_it_holds():
    for path in PACKAGE.rglob("__init__.py"):
        described = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert described, path
        assert described.strip(), path


def test_only_the_aliases_know_the_names_of_earlier_versions():
    from clipact import aliases

    old = {value for table in aliases.VALUES.values() for values in table.values() for value in values}
    old -= {"frames", "labels", "attentive"}  # words of every day, and the name of a baseline
    for path in FILES:
        if path.name == "aliases.py":
            continue
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant)
        }
        assert not old & {text for text in strings if isinstance(text, str)}, path
