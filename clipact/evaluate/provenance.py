"""What a result says of how it came about: versions, machine, model, and whether it is zero-shot."""

import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from clipact import __version__
from clipact.models.zoo import Model

_LIBRARIES = ("torch", "numpy", "av", "pillow", "tokenizers", "open_clip_torch", "timm", "transformers", "torchcodec")


def describe_run(
    model: Model | None,
    data: dict[str, Any],
    *,
    digests: Sequence[str] = (),
    seen: frozenset[str] = frozenset(),
    taught: str = "",
) -> dict[str, Any]:
    """The part of a result's `run` that hangs on the model, the data and the machine alone.

    `digests` are the sha256 of the files that were read, `seen` those that the model learnt from: when they meet the
    result is not zero-shot, whatever the data set is called. `taught` says how the labels were learnt from examples,
    where they were by more than the model.
    """
    answer, why = zero_shot(() if model is None else model.trained_on, data)
    if taught or (model is not None and model.labels):
        answer, why = False, f"supervised: {taught or 'trained on these labels'}"
    if common := sum(digest in seen for digest in digests):
        answer, why = False, f"trained on {common:,} of these {len(digests):,} files"
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "folder": str(Path.cwd()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": 0,
        "model": None if model is None else {
            "name": model.name,
            "key": model.key,
            "trained_on": list(model.trained_on),
            "scale": float(model.encoder.scale.detach()),
            "precision": model.encoder.precision,
        },
        "versions": {"clipact": __version__, "python": platform.python_version(), **_versions()},
        "machine": {
            "platform": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": "cpu" if model is None else str(model.encoder.log_scale.device),
        },
        "zero_shot": answer,
        "zero_shot_why": why,
    }  # fmt: skip


def zero_shot(trained_on: tuple[str, ...], data: dict[str, Any]) -> tuple[bool | None, str]:
    """Whether a score on this data set is zero-shot, and why not; None when the model does not say what it learnt from.

    A name in `trained_on` may go on with the part, as in "flickr8k train": any part of a set counts. A table of one's
    own is of no named set, and says only what the model learnt from.
    """
    ours = {_bare(name): name for name in (data["set"], *data.get("aliases", ())) if name}
    seen = [name for name in trained_on if _bare(name) in ours or _bare(name.partition(" ")[0]) in ours]
    if seen:
        return False, f"trained on {', '.join(seen)}"
    if not trained_on:
        return None, "the model does not say what it was trained on"
    if not ours:
        return (
            None,
            f"the model was trained on {', '.join(trained_on)}; of which data set these files are, no protocol says",
        )
    return True, ""


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an optional one
            continue
    return found


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1].strip() if named else platform.processor()
