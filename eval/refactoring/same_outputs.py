"""Run the same work in two checkouts of clipact, and compare all that comes out to the bit.

    python eval/refactoring/same_outputs.py --other DIR --data DIR [--only train,index] [--out DIR] [--json FILE]

`--other` is the checkout from before, `--this` the one from after: by default that of this file. Both run the cases of
cases.py with this interpreter, each with a cache of its own. What a case prints and writes is compared file by file:
JSON by key, weights by tensor, tables by cell, pictures by pixel, anything else by byte. Numbers, labels and names are
equal or not; the largest difference of numbers is shown, not allowed.

What the change renames stands in the tables below, the old name first. They apply where the other checkout is of the
old layout and this one of the new. What IGNORED and UNCOMPARED name is not compared: times, the machine, prose.

The results of the other checkout stay under `--out`, by its commit and by cases.py, and are not made again; those of a
checkout with uncommitted changes are. `--out` takes about 3 GB. Exit code 1 when anything differs, or a case fails.
"""

import argparse
import csv
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cases import CASES, Case, Step, write_inputs

ROOT = Path(__file__).resolve().parents[2]

# The words with which a command line begins.
RENAMED_COMMANDS: dict[str, str] = {"probe": "info", "models blend": "models interpolate"}
# Any argument as it stands, such as "--clips"; "classify --clips" is that of one command (its old name) alone.
RENAMED_OPTIONS: dict[str, str] = {"--words": "--include", "--names": "--label-format"}
# Identifiers in the Python code of cases.
RENAMED_NAMES: dict[str, str] = {}
# Keys of JSON and columns of CSV; "above.key" is the key in a table of that name alone (both old names).
RENAMED_KEYS: dict[str, str] = {
    "eval.jsonl.figures": "metrics",
    "calibrate.jsonl.figures": "metrics",
    # results
    "verdict": "zero_shot_status",
    "card": "protocol",
    "asked": "request_key",
    "run.place": "name_key",
    "also": "aliases",
    "comparison.learnt": "trainable_parameters",
    # calibrations
    "judgement": "params",
    "answers": "target",
    "calibration.figures": "metrics",
    "false_rejections": "false_rejection_rate",
    "trust.fit": "in_set_score",
    # recipes, training states
    "start": "init",
    "start.parts": "pretrained",
    "learns": "trainable",
    "teach": "distillation",
    "teach.models": "teachers",
    "teach.share": "weight",
    "judge": "validation",
    "every": "every_steps",
    "judge.best": "monitor",
    "data.views": "cached_augmentations",
    "broken_limit": "max_unreadable",
    "vary": "caption_augmentation",
    "average_decay": "ema_decay",
    "start_share": "wise_ft_alpha",
    "train.memory_gb": "graph_memory_gb",
    "broken": "unreadable_files",
    "kept_chunks": "retained_chunks",
    # comparisons, sweeps, lint
    "compare.jsonl.learnt": "trainable_parameters",
    "rows.learnt": "trainable_parameters",
    "comparison.json.learnt": "train",
    "comparison.json.tested": "test",
    "lint.jsonl.said": "message",
    "sweep.csv.names": "label_format",
    "sweep.csv.words": "include",
    # indexes
    "table.about": "metadata",
    "table.nearest": "faiss",
    "nearest.recipe": "factory",
    "nearest.width": "search_effort",
}
# Strings that are values, by their (old) key: "kind=probe": "linear".
RENAMED_VALUES: dict[str, str] = {
    "tower=frames": "frame_aggregator",
    "tower=attentive": "attention_pool",
    "tower=labels": "label_embeddings",
    "sampling=middles": "segment_centers",
    "visual=frames": "frame_aggregator",
}
# Files and folders, by name.
RENAMED_FILES: dict[str, str] = {}
# Tensors of a saved model: regular expressions and what takes their place, one after the other.
RENAMED_TENSORS: dict[str, str] = {
    r"^average\.": "ema.",
    r"^beginning\.": "initial_weights.",
    r"\.attend\.": ".qkv.",
    r"\.merge\.": ".proj.",
    r"(?<!channel)\.grow\.": ".fc1.",
    r"(?<!channel)\.shrink\.": ".fc2.",
}

# New names of keys that are not compared, or "above.key"; the outermost name above is the file's.
IGNORED = {
    # times and memory
    *("date", "seconds", "samples_per_second", "waited", "memory_gb", "peak_memory_bytes"),
    *("milliseconds", "milliseconds_a_clip", "training_seconds", "pretraining_seconds"),
    # the machine, and where things are
    *(
        "machine",
        "versions",
        "command",
        "folder",
    ),
    # prose
    *("notes", "advice", "cause", "zero_shot_why", "partial_why"),
    # hashes of texts in which keys may be renamed; what they are of is compared itself
    *("request_key", "name_key", "index.json.sha256", "calibration.json.sha256"),
    # hashes of models that were trained here, whose config.json has other keys
    *("compare: model.key",),
    # keys that are gone; cases leave them at their defaults
    *("train.accumulate", "optim.eps", "optim.final_lr", "optim.visual_lr"),
}
# Answers of models that were trained here: the largest difference allowed. Their weights are equal to the bit, but a
# tensor with another name has another place in its safetensors file, which is mapped into memory: fp32 kernels of a CPU
# round otherwise where the alignment is another. The new code on the old file gives the old bits.
ALLOWED: dict[str, tuple[str, float]] = {
    "train_own": ("answers", 1e-6),
    "train_i3d": ("answers", 1e-6),
    "compare": ("out/cells", 1e-5),
}
UNCOMPARED = {".md", ".html", ".toml", ".err", ".lock"}  # prose, and what a case wrote itself

_RANDOM = (  # names that say nothing: of an index's files, of a comparison's cells
    (re.compile(r"\b[0-9a-f]{16}\.(?=entries|keys|offsets|vectors|faiss)"), "HASH."),
    (re.compile(r"-[0-9a-f]{8}(?=/|$)"), "-HASH"),
)
_START = """
import sys
from pathlib import Path
import clipact
root = Path(sys.argv.pop(1)).resolve()
assert Path(clipact.__file__).resolve() == root / "clipact" / "__init__.py", f"{clipact.__file__} is not in {root}"
"""
_SHOWN = 5  # differences of a case


@dataclass(frozen=True)
class Checkout:
    """A checkout, and whether its layout is the new one."""

    root: Path

    @property
    def new(self) -> bool:
        """Whether names are those of after."""
        return (self.root / "clipact" / "models").is_dir()

    def version(self) -> str:
        """The commit; empty when files differ from it."""
        git = ["git", "-C", str(self.root)]
        changed = subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True, text=True).stdout
        commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        return "" if any(not line.startswith("??") or " clipact/" in line for line in changed.splitlines()) else commit

    def program(self, step: Step, places: dict[str, str]) -> list[str]:
        """The command that carries out a step in this checkout."""
        if step.code:
            code = _fill(step.code, places)
            for old, name in RENAMED_NAMES.items() if self.new else ():
                code = re.sub(rf"\b{re.escape(old)}\b", name, code)
            return [sys.executable, "-c", _START + code, str(self.root)]
        scripts = tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
        module, _, function = scripts["clipact"].partition(":")
        start = f"{_START}sys.argv[0] = 'clipact'\nfrom {module} import {function} as main\nmain()"
        words = self._renamed(step.arguments) if self.new else shlex.split(step.arguments)
        return [sys.executable, "-c", start, str(self.root), *(_fill(word, places) for word in words)]

    def _renamed(self, arguments: str) -> list[str]:
        words = shlex.split(arguments)
        renamed = [RENAMED_OPTIONS.get(f"{words[0]} {word}", RENAMED_OPTIONS.get(word, word)) for word in words]
        for count in (2, 1):
            if name := RENAMED_COMMANDS.get(" ".join(words[:count])):
                return [*name.split(), *renamed[count:]]
        return renamed

    def run(self, case: Case, folder: Path, places: dict[str, str]) -> float:
        """Carry out a case in `folder`, anew, and give its seconds; RuntimeError when a step fails."""
        shutil.rmtree(folder, ignore_errors=True)
        work, cache = folder / "work", folder / "cache"
        work.mkdir(parents=True)
        for name, text in case.recipes.items():
            (work / name).write_text(text, encoding="utf-8")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CLIPACT_")} | {
            "PYTHONPATH": str(self.root),
            "PYTHONSAFEPATH": "1",
            "PYTHONHASHSEED": "0",
            "CLIPACT_CACHE": str(cache),
            "OMP_NUM_THREADS": str(case.threads),
            "MKL_NUM_THREADS": str(case.threads),
        }
        began = time.perf_counter()
        for step in case.steps:
            with (work / f"{step.name}.jsonl").open("wb") as out, (work / f"{step.name}.err").open("wb") as err:
                done = subprocess.run(
                    self.program(step, places), cwd=work, env=environment, stdout=out, stderr=err, check=False
                )
            if done.returncode:
                said = (work / f"{step.name}.err").read_text(encoding="utf-8", errors="replace").strip()
                raise RuntimeError(f"{step.name} in {self.root}: exit code {done.returncode}: {said[-600:]}")
        seconds = time.perf_counter() - began
        shutil.rmtree(cache, ignore_errors=True)
        (folder / "done.json").write_text(json.dumps({"seconds": seconds}), encoding="utf-8")
        return seconds


def _fill(text: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        text = text.replace(f"{{{name}}}", place)
    return text


@dataclass
class Comparison:
    """What differs between the folders of a case.

    case         the name of the case
    renaming     whether the names of the other side are old ones, and this side's are new
    places       texts that stand for the same on both sides, such as the folder of the case
    differences  in words, the first ones; `count` has all
    largest      the largest absolute difference of two numbers
    compared     numbers, strings and tensors that were looked at
    allowed      how the names of files begin whose numbers may differ, and by how much; `rounded`: by how much
    """

    case: str
    renaming: bool
    places: dict[str, str]
    differences: list[str] = field(default_factory=list)
    count: int = 0
    largest: float = 0.0
    compared: int = 0
    allowed: tuple[str, float] = ("", 0.0)
    rounded: float = 0.0

    def differ(self, where: tuple[str, ...], said: str, *, apart: float = 0.0) -> None:
        """Note a difference."""
        if where[0].startswith(self.allowed[0]) and 0 < apart <= self.allowed[1]:
            self.rounded = max(self.rounded, apart)
            return
        self.count += 1
        self.largest = max(self.largest, math.inf if math.isnan(apart) else apart)
        if len(self.differences) < _SHOWN:
            self.differences.append(f"{' > '.join(where)}: {said}")

    def folders(self, other: Path, this: Path) -> None:
        """Compare all files of two folders."""
        before, after = self._files(other, old=True), self._files(this)
        for name in sorted(before.keys() ^ after.keys()):
            self.differ((name,), f"only {'before' if name in before else 'after'}")
        for name in sorted(before.keys() & after.keys()):
            if (suffix := before[name].suffix) not in UNCOMPARED:
                _READERS.get(suffix, Comparison.bytes)(self, (name,), before[name], after[name])

    def _files(self, folder: Path, *, old: bool = False) -> dict[str, Path]:
        found: dict[str, list[Path]] = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            parts = path.relative_to(folder).parts
            if old and self.renaming:
                parts = tuple(RENAMED_FILES.get(part, part) for part in parts)
            found.setdefault(self._plain("/".join(parts)), []).append(path)
        files = {}
        for name, paths in found.items():  # of an index's segments several have no name that says anything
            for place, path in enumerate(sorted(paths, key=Path.read_bytes) if len(paths) > 1 else paths):
                files[f"{name}#{place}" if place else name] = path
        return files

    def _plain(self, text: str) -> str:
        for place in sorted(self.places, key=len, reverse=True):  # one may begin as another does
            text = text.replace(place, self.places[place])
        for pattern, name in _RANDOM:
            text = pattern.sub(name, text)
        return text

    def _key(self, where: tuple[str, ...], key: str) -> str:
        if not self.renaming:
            return key
        above = re.sub(r"(\[\d+\])+$", "", Path(where[-1]).name)
        if above == "vocab":  # of a tokenizer: words
            return key
        return RENAMED_KEYS.get(f"{above}.{key}", RENAMED_KEYS.get(key, key))

    def values(self, where: tuple[str, ...], before: object, after: object, *, old: tuple[str, ...] = ()) -> None:
        """Compare two values of JSON; `old` is where the first of them is, in old names."""
        old = old or where
        if isinstance(before, dict) and isinstance(after, dict):
            renamed = {self._key(old, key): (key, value) for key, value in before.items()}
            above = re.sub(r"(\[\d+\])+$", "", Path(where[-1]).name)
            for key in dict.fromkeys([*renamed, *after]):
                if {key, f"{above}.{key}", f"{self.case}: {above}.{key}"} & IGNORED:
                    continue
                if key not in renamed or key not in after:
                    self.differ((*where, key), f"only {'before' if key in renamed else 'after'}")
                    continue
                name, value = renamed[key]
                self.values((*where, key), value, after[key], old=(*old, name))
        elif isinstance(before, list) and isinstance(after, list):
            if len(before) != len(after):
                self.differ(where, f"{len(before)} values, and {len(after)}")
            for place, (one, other) in enumerate(zip(before, after, strict=False)):
                self.values((*where[:-1], f"{where[-1]}[{place}]"), one, other, old=old)
        else:
            self._leaves(where, before, after, key=old[-1])

    def _leaves(self, where: tuple[str, ...], before: object, after: object, *, key: str) -> None:
        self.compared += 1
        if isinstance(before, str) and isinstance(after, str):
            if self.renaming:
                before = RENAMED_VALUES.get(f"{key}={before}", before)
            if (hexes := _read_hex(before, after)) is None:
                before, after = self._plain(before), self._plain(after)
            elif before != after:
                before, after = hexes
        if type(before) is not type(after) or (before != after and not (_is_nan(before) and _is_nan(after))):
            numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (before, after))
            self.differ(where, f"{before!r}, and {after!r}", apart=abs(before - after) if numbers else 0.0)

    def json(self, where: tuple[str, ...], other: Path, this: Path) -> None:
        """Compare two files of JSON, or of JSON a line."""
        self.values(where, _read_json(other), _read_json(this))

    def table(self, where: tuple[str, ...], other: Path, this: Path) -> None:
        """Compare two CSV files."""
        both = []
        for path in (other, this):
            with path.open(newline="", encoding="utf-8") as file:
                both.append([{key: _read_cell(text) for key, text in row.items()} for row in csv.DictReader(file)])
        self.values(where, *both)

    def arrays(self, where: tuple[str, ...], other: Path, this: Path) -> None:
        """Compare two NumPy archives."""
        with np.load(other) as before, np.load(this) as after:
            renamed = {self._key(where, name): before[name] for name in before.files}
            self._named(where, renamed, {name: after[name] for name in after.files})

    def weights(self, where: tuple[str, ...], other: Path, this: Path) -> None:
        """Compare two safetensors files, and the facts that they carry."""
        (before, facts), (after, others) = _read_weights(other), _read_weights(this)
        for pattern, name in RENAMED_TENSORS.items() if self.renaming else ():
            before = {re.sub(pattern, name, key): value for key, value in before.items()}
        self._named(where, before, after)
        self.values((*where, "metadata"), facts, others)

    def pixels(self, where: tuple[str, ...], other: Path, this: Path) -> None:
        """Compare two pictures."""
        from PIL import Image

        self._named(where, *({"pixels": np.asarray(Image.open(path))} for path in (other, this)))

    def bytes(self, where: tuple[str, ...], other: Path, this: Path) -> None:
        """Compare two files of anything else."""
        self._named(where, *({"bytes": np.frombuffer(path.read_bytes(), np.uint8)} for path in (other, this)))

    def _named(self, where: tuple[str, ...], before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> None:
        for name in sorted(before.keys() | after.keys()):
            place = (*where, name)
            if name not in before or name not in after:
                self.differ(place, f"only {'before' if name in before else 'after'}")
                continue
            one, other = before[name], after[name]
            self.compared += 1
            if (one.shape, one.dtype) != (other.shape, other.dtype):
                self.differ(place, f"{one.dtype} {list(one.shape)}, and {other.dtype} {list(other.shape)}")
            elif one.tobytes() != other.tobytes():
                unlike, apart = _distance(one, other)
                self.differ(place, f"{unlike:,} of {one.size:,} differ, by {apart:.3g} at most", apart=apart)


_READERS = {
    ".json": Comparison.json,
    ".jsonl": Comparison.json,
    ".csv": Comparison.table,
    ".npz": Comparison.arrays,
    ".safetensors": Comparison.weights,
    ".png": Comparison.pixels,
}


def _distance(one: np.ndarray, other: np.ndarray) -> tuple[int, float]:
    """How many elements have other bits, and the largest difference; infinite when one of two is no number."""
    if one.dtype.kind not in "fiub":
        return int((one != other).sum()), 0.0
    bits = (one.reshape(-1, 1).view(np.uint8) != other.reshape(-1, 1).view(np.uint8)).any(axis=1)
    wide = [part.reshape(-1)[bits].astype(np.float64) for part in (one, other)]
    with np.errstate(invalid="ignore"):
        return int(bits.sum()), float(np.nan_to_num(np.abs(wide[0] - wide[1]), nan=np.inf).max())


def _read_hex(before: str, after: str) -> tuple[float, float] | None:
    """Two numbers that Python wrote by float.hex(), else None."""
    if not (before.lstrip("-").startswith("0x") and after.lstrip("-").startswith("0x") and "p" in before):
        return None
    return float.fromhex(before), float.fromhex(after)


def _read_cell(text: object) -> object:
    """A cell of CSV, as a number where it is one that is written as Python writes it."""
    try:
        return float(text) if isinstance(text, str) and re.fullmatch(r"-?\d+(\.\d+)?(e[-+]\d+)?", text) else text
    except ValueError:
        return text


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _read_json(path: Path) -> object:
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        return [json.loads(line) for line in text.splitlines()]
    except json.JSONDecodeError:
        return {"prose": bool(text)}  # a command without --json


def _read_weights(path: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    for name, text in metadata.items():
        if text.startswith(("{", "[")):
            metadata[name] = json.loads(text)
    wide = {name: tensor.float() if tensor.dtype is torch.bfloat16 else tensor for name, tensor in tensors.items()}
    return {name: tensor.numpy() for name, tensor in wide.items()}, metadata


def run_case(
    case: Case, other: Checkout, this: Checkout, folders: dict[Checkout, Path], places: dict[str, str]
) -> dict:
    """Run a case where it has to be, and compare; the facts of one line."""
    found: dict = {"case": case.name, "verdict": "FAILED", "seconds": {}}
    before, after = folders[other] / case.name, folders[this] / case.name
    try:
        kept = other.version() and (before / "done.json").is_file()
        found["seconds"]["before"] = (
            json.loads((before / "done.json").read_text())["seconds"] if kept else other.run(case, before, places)
        )
        found["seconds"]["after"] = this.run(case, after, places)
    except RuntimeError as error:
        return found | {"differences": [str(error)]}
    names = {str(folder / "work"): "WORK" for folder in (before, after)}
    comparison = Comparison(
        case.name, this.new and not other.new, names | {str(one.root): "CHECKOUT" for one in (other, this)}
    )
    comparison.allowed = ALLOWED.get(case.name, comparison.allowed)
    comparison.folders(before / "work", after / "work")
    same = not comparison.count and comparison.compared > 0
    return found | {
        "verdict": "same" if same else "DIFFERENT",
        "compared": comparison.compared,
        "count": comparison.count,
        "largest": comparison.largest,
        "rounded": comparison.rounded,
        "differences": comparison.differences,
    }


def show(found: dict) -> str:
    """The lines of a case."""
    taken = " and ".join(f"{seconds:.0f}" for seconds in found["seconds"].values()) or "0"
    line = f"{found['case']:15} {found['verdict']:10} {taken} s"
    if "compared" in found:
        line += f", {found['compared']:,} values"
    if found.get("count"):
        line += f", {found['count']:,} differ, by {found['largest']:.3g} at most"
    if found.get("rounded"):
        line += f", rounded otherwise by {found['rounded']:.1g} at most"
    return "\n    ".join([line, *found.get("differences", ())])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, required=True, help="the checkout from before")
    parser.add_argument("--this", type=Path, default=ROOT, help="the checkout from after; by default that of this file")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", default="", help="cases whose names begin so, between commas; all by default")
    parser.add_argument("--out", type=Path, default=Path("same_outputs"))
    parser.add_argument("--json", type=Path, help="write what was found to this file, too")
    given = parser.parse_args()
    cases = [case for case in CASES if case.name.startswith(tuple(given.only.split(",")))]
    if not cases:
        parser.error(f"--only {given.only}: the cases are {', '.join(case.name for case in CASES)}")
    out, other, this = given.out.resolve(), Checkout(given.other.resolve()), Checkout(given.this.resolve())
    described = hashlib.sha256(Path(__file__).with_name("cases.py").read_bytes()).hexdigest()[:12]
    folders = {this: out / "this", other: out / f"{other.version()[:12] or 'changed'}-{described}"}
    if other == this:
        parser.error("--other and --this are the same folder; make a clone")
    places = {"data": str(given.data.resolve()), "inputs": str(out / "inputs")}
    write_inputs(out / "inputs", data=given.data, examples=ROOT / "examples")
    found = []
    for case in cases:
        found.append(run_case(case, other, this, folders, places))
        print(show(found[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return any(one["verdict"] != "same" for one in found)


if __name__ == "__main__":
    raise SystemExit(main())
