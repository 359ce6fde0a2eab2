"""Count the package's files in which a function runs during one command.

    python eval/refactoring/files_run.py -- classify examples/reading_newspaper.mp4 --labels drink,read
    python eval/refactoring/files_run.py --root OTHER_CHECKOUT -- train own.toml --out runs/own

A profile function (sys.setprofile, threading.setprofile) notes the file of each Python function that is called, in
every thread of the process. Module bodies, class bodies and code that `exec` compiles (the methods of dataclasses) do
not count: importing a file is not following it. Worker processes are not seen.
"""

import argparse
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="the checkout that is measured")
    parser.add_argument("command", nargs="+", help="the words after `clipact`, behind --")
    options = parser.parse_args()
    package = str(options.root.resolve() / "clipact") + "/"
    sys.path.insert(0, str(options.root.resolve()))

    seen: Counter[str] = Counter()
    known: dict[Any, bool] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code not in known:
            known[code] = code.co_filename.startswith(package) and bool(code.co_flags & 0x02)  # CO_NEWLOCALS: no body
            # A class body is called, too: its locals are no fast locals.
            known[code] = known[code] and bool(code.co_flags & 0x01)
        if known[code]:
            seen[code.co_filename.removeprefix(package)] += 1

    from clipact.cli import app

    if not str(app.__file__).startswith(package):
        sys.exit(f"clipact was imported from {app.__file__}, not from {package}")
    sys.argv = ["clipact", *options.command]
    status: object = 0
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        app.main()
    except SystemExit as stop:
        status = stop.code
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    for name in sorted(seen):
        print(name, file=sys.stderr)
    folders = Counter(name.rpartition("/")[0] or "." for name in seen)
    print(", ".join(f"{folder} {count}" for folder, count in sorted(folders.items())), file=sys.stderr)
    print(f"{len(seen)} files", file=sys.stderr)
    sys.exit(int(status or 0) if isinstance(status, int) or status is None else 1)


if __name__ == "__main__":
    main()
