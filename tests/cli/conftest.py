import subprocess
import sys
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def clipact(capsys, monkeypatch):
    """The command line in this process: `clipact("classify", ...)` -> exit code, stdout, stderr."""
    from clipact.cli.app import main

    def run(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["clipact", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return Done(int(stopped.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def shell():
    """The command line in a process of its own."""

    def run(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "clipact.cli.app", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, **options)

    return run
