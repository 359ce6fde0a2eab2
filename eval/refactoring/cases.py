"""Describe the work that same_outputs.py runs in two checkouts, each case once, with the names of before.

A case is recipes and steps. A step is a command line of clipact, or a few lines of Python, run in the case's folder;
what it prints goes to NAME.jsonl, and everything that it writes below the folder is compared. `{data}` is the data
folder, `{inputs}` a folder of copies from it and from examples/, the same for both checkouts.

The results of the other checkout are kept under a hash of this file: a change here runs them again.
"""

import csv
import shutil
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Step:
    """Name one process and what it does: the arguments of clipact, or Python code."""

    name: str
    arguments: str = ""  # split as a shell does
    code: str = ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Name a group of steps that share a folder, with the recipes that are written into it before.

    threads  of torch and OpenMP; 1 where the order of a sum, or of what is put into an index, hangs on them
    """

    name: str
    steps: tuple[Step, ...]
    recipes: dict[str, str] = field(default_factory=dict)
    threads: int = 2


_EXAMPLES = " ".join(
    f"{{inputs}}/examples/{name}.mp4"
    for name in ("reading_newspaper", "eating_biscuits", "drinking_then_falling", "reading_while_walking")
)
_LABELS = "--labels 'drink,read,eat,walk,punching,shaking hands'"

_API = """
import json
from pathlib import Path
import clipact

labels = ["drinking", "reading", "eating", "fighting", "shaking hands", "kicking", "waving", "falling", "walking"]
classifier = clipact.ZeroShotClassifier.load("mini", labels=labels, precision="PRECISION")
for path in sorted(Path(r"{inputs}/clips").iterdir())[::EVERY]:
    answer = classifier.classify(path)
    scores = {one.label: one.score.hex() for one in answer.top(len(labels))}
    frames = [(frame.index, frame.seconds) for frame in answer.frames]
    print(json.dumps({"clip": path.name, "label": answer.label, "scores": scores, "frames": frames}))
"""

_OWN = """
name = "own"
trained_on = ["my clips"]
start.model = "mini"
start.visual = { tower = "frames", aggregator = "transformer" }
data.sources = [{ manifest = "clips.csv", frames = 8 }]
visual.learns = "head"
text.learns = "nothing"
train = { batch = 32, steps = 20 }
"""

_GRU = """
name = "gru"
trained_on = ["my clips"]
start.model = "mini"
start.clip = { frames = 4, size = [96, 96] }
start.visual = { tower = "frames", aggregator = "gru", shift = 0.125 }
start.bias = -10.0
data = { workers = 0, sources = [{ manifest = "clips.csv", frames = 4 }], augment = { scale = [0.5, 1.0], flip = 0.5 } }
text.learns = "head"
train = { loss = "sigmoid", batch = 8, chunk = 8, steps = 2 }
optim = { lr = 1e-4, warmup_steps = 1 }
"""

_I3D = """
name = "i3d"
trained_on = ["my clips"]
start.visual = { tower = "i3d", inserts = { mixed_4f = "cbam" } }
start.text = { tower = "labels" }
start.clip = { frames = 8, size = [64, 64] }
data.sources = [{ manifest = "clips.csv", frames = 8 }]
train = { loss = "cross_entropy", batch = 4, chunk = 16, steps = 20 }
"""

_PICTURES = """
name = "pictures"
trained_on = ["my pictures"]
start.model = "mini"
visual = { learns = "head", unfreeze_step = 4, frozen_layers = 15, batch_norm = "frozen" }
text = { learns = "head", unfreeze_step = 4 }
train = { batch = 16, chunk = 8, steps = 8, precision = "bf16", save_as = "fp16" }

[optim]
lr = 1e-3
text_lr = 0.3
layer_decay = 0.85
warmup_steps = 2
average_decay = 0.98
clip_norm = 1.0
start_share = 0.2

[data]
views = 2
augment = { size = [160, 160], scale = [0.35, 1.0], flip = 0.5, brightness = 0.3, contrast = 0.3, saturation = 0.3 }
sources = [{ manifest = "captions.csv", sentences = 2, vary = { tense = 0.4, subject = 0.1 } }]

[judge]
every = 4
sets = [{ name = "dev", manifest = "captions.csv" }]
"""

_VIDEOMAE = """
name = "videomae"
trained_on = ["ut_interaction, without labels"]
clip = { frames = 8, size = [64, 64] }
decoder = { width = 64, layers = 2, heads = 2, hidden = 256 }
mask = { kind = "tube", ratio = 0.9 }
data = { sources = [{ files = "ut/set1_*" }], augment = { scale = [0.5, 1.0], flip = 0.5 } }
train = { batch = 10, chunk = 40, steps = 8 }
optim = { lr = 1.5e-3, weight_decay = 0.05, betas = [0.9, 0.95], warmup_steps = 4 }
judge = { every = 4, sets = [{ name = "set2", files = "ut/set2_*" }] }

[encoder]
width = 128
layers = 6
heads = 4
hidden = 512
patch = 8
tubelet = 2
attention = "joint"
class_token = "none"
positions = "number_sines"
"""

_FROM_VIDEOMAE = """
name = "vivit"
trained_on = ["my clips"]
start.model = "mini"
start.visual = { tower = "vivit", head = { dim = 256, blocks = 0 } }
start.clip = { frames = 8, size = [64, 64] }
start.parts.visual = "videomae/last"
data = { workers = 0, sources = [{ manifest = "clips.csv", frames = 8 }] }
text.learns = "nothing"
train = { batch = 8, chunk = 32, memory_gb = 4.0, steps = 3 }
"""

_COMPARE = """
clip = { frames = 8, size = [64, 64] }

[whole]
train = { loss = "cross_entropy", batch = 8, chunk = 64, memory_gb = 4.0, steps = 3 }
optim = { lr = 1e-3, warmup_steps = 1, clip_norm = 1.0 }
augment = { scale = [0.6, 1.0], flip = 0.5, brightness = 0.2, contrast = 0.2 }

[head]
train = { loss = "cross_entropy", batch = 48, chunk = 384, memory_gb = 4.0, steps = 10 }
optim = { lr = 1e-3, warmup_steps = 2, clip_norm = 1.0 }

[pretraining]
train = { batch = 16, chunk = 128, epochs = 1.0 }
optim = { lr = 1.5e-3, weight_decay = 0.05, betas = [0.9, 0.95], warmup_steps = 1 }
augment = { scale = [0.5, 1.0], flip = 0.5 }
mask = { kind = "tube", ratio = 0.9 }
"""
_ROWS = "zero-shot:mini,probe:mini,knn:mini@5,few-shot:mini@8,lstm:mini,attentive:mini,i3d+non-local,vivit,swin3d"
_ROWS += ",videomae+pretraining"

_TRAIN = "--data {inputs} --out"

CASES = (
    Case(
        name="classify",
        steps=(
            Step(name="python_fp32", code=_API.replace("PRECISION", "fp32").replace("EVERY", "1")),
            Step(name="python_auto", code=_API.replace("PRECISION", "auto").replace("EVERY", "4")),
            Step(name="labels", arguments=f"classify {_EXAMPLES} {_LABELS} --json"),
            Step(name="clips", arguments=f"classify {_EXAMPLES} --labels daily-living:ten --clips 3 --top 10 --json"),
            Step(name="multi_label", arguments=f"classify {_EXAMPLES} {_LABELS} --multi-label --json"),
            Step(
                name="options",
                arguments=f"classify {_EXAMPLES} {_LABELS} --prompts single --frames 5 --from 1 --to 3.5 "
                "--precision fp32 --time-limit 60 --json",
            ),
        ),
    ),
    Case(
        name="video",
        steps=(
            Step(name="probe", arguments="probe {inputs}/clips --json"),
            Step(name="frames", arguments="frames {inputs}/examples/eating_biscuits.mp4 --out strip.png"),
        ),
    ),
    Case(
        name="train_own",
        recipes={"own.toml": _OWN},
        steps=(
            Step(name="train", arguments=f"train own.toml {_TRAIN} own"),
            Step(name="answers", arguments=f"classify {_EXAMPLES} {_LABELS} --model own/last --json"),
        ),
    ),
    Case(
        name="train_gru",
        recipes={"gru.toml": _GRU},
        steps=(Step(name="train", arguments=f"train gru.toml {_TRAIN} gru"),),
    ),
    Case(
        name="train_i3d",
        recipes={"i3d.toml": _I3D},
        steps=(
            Step(name="train", arguments=f"train i3d.toml {_TRAIN} i3d"),
            Step(name="answers", arguments=f"classify {_EXAMPLES} --model i3d/last --json"),
        ),
    ),
    Case(
        name="train_pictures",
        recipes={"pictures.toml": _PICTURES},
        steps=(
            Step(name="train", arguments=f"train pictures.toml {_TRAIN} pictures"),
            Step(name="blend", arguments="models blend mini pictures/last --alpha 0.5 --out blend"),
        ),
    ),
    Case(
        name="pretrain",
        recipes={"videomae.toml": _VIDEOMAE, "vivit.toml": _FROM_VIDEOMAE},
        steps=(
            Step(name="pretrain", arguments=f"pretrain videomae.toml {_TRAIN} videomae"),
            Step(name="train", arguments=f"train vivit.toml {_TRAIN} vivit"),
        ),
    ),
    Case(
        name="eval",
        steps=(Step(name="eval", arguments="eval weizmann ut_interaction surv_fight --data {data} --out out --json"),),
    ),
    Case(name="retrieval", steps=(Step(name="eval", arguments="eval flickr8k --data {data} --out out --json"),)),
    Case(
        name="index",
        threads=1,  # HNSW's graph hangs on the order in which threads put rows in
        steps=tuple(
            step
            for kind in ("exact", "hnsw", "ivf-pq")
            for step in (
                Step(
                    name=f"build_{kind}", arguments=f"index build {{inputs}}/sentences.csv --kind {kind} --out {kind}"
                ),
                Step(
                    name=f"query_{kind}",
                    arguments=f"index query {kind} {_EXAMPLES} --text dog --text swimming --top 20 --json",
                ),
            )
        )
        + (
            Step(name="labels", arguments=f"classify {_EXAMPLES} --labels index:hnsw --json"),
            Step(name="add", arguments="index add exact {inputs}/more.csv"),
        ),
    ),
    Case(
        name="calibrate",
        steps=(
            Step(name="calibrate", arguments="calibrate weizmann --data {data} --out calibration.json --json"),
            Step(name="answers", arguments=f"classify {_EXAMPLES} --calibration calibration.json --json"),
            Step(
                name="multi_label",
                arguments=f"classify {_EXAMPLES} --calibration calibration.json --multi-label --json",
            ),
        ),
    ),
    Case(
        name="compare",
        recipes={"compare.toml": _COMPARE},
        steps=(
            Step(
                name="compare",
                arguments=f"compare weizmann --data {{data}} --models {_ROWS} --recipe compare.toml --out out --json",
            ),
        ),
    ),
    Case(
        name="prompts",
        steps=(
            Step(
                name="sweep",
                arguments="prompts sweep weizmann --data {data} --out sweep --templates action,bare,single "
                "--words phrase,all --json",
            ),
            Step(name="lint", arguments="prompts lint daily-living:ten --json"),
        ),
    ),
    Case(
        name="data",
        steps=(
            Step(name="clips", arguments="data check {inputs}/clips.csv --json"),
            Step(name="captions", arguments="data check {inputs}/captions.csv --json"),
        ),
    ),
    Case(name="models", steps=(Step(name="show", arguments="models show mini --json"),)),
)

_TABLE = (  # the README's
    ("reading_newspaper.mp4", "reading a newspaper", "", ""),
    ("eating_biscuits.mp4", "eating biscuits", "", ""),
    ("drinking_then_falling.mp4", "drinking", "3.5", "5.3"),
    ("drinking_then_falling.mp4", "falling", "6.9", "12"),
    ("reading_while_walking.mp4", "reading a book while walking", "", ""),
)


def write_inputs(folder: Path, *, data: Path, examples: Path) -> None:
    """Copy clips and pictures into `folder`, and write the tables that recipes name."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("examples", "clips", "ut", "pictures"):
        (folder / name).mkdir(parents=True)
    for path in examples.glob("*.mp4"):
        shutil.copy(path, folder / "examples")
        shutil.copy(path, folder / "clips")
    clips = data / "clips"
    for name, every in (("ut_interaction", 3), ("weizmann", 3), ("surv_fight", 3), ("gmdcsa24", 4), ("mixed_real", 1)):
        files = sorted(path for path in (clips / name).iterdir() if path.suffix in (".mp4", ".avi"))
        for path in files[::every]:
            shutil.copy(path, folder / "clips" / f"{name}-{path.name}")
    rows = [(f"examples/{path}", *rest) for path, *rest in _TABLE]
    for row in _read(clips / "ut_interaction.csv")[::3]:
        path = clips / row["path"]
        shutil.copy(path, folder / "ut")
        rows.append((f"ut/{path.name}", row["label"], "", ""))
    _write(folder / "clips.csv", ("path", "label", "start_seconds", "end_seconds"), rows)

    captions = _read(data / "flickr8k" / "captions.csv")
    pictures = list(dict.fromkeys(row["path"] for row in captions))[:96]
    split = {path: "train" if place < 80 else "dev" for place, path in enumerate(pictures)}
    for path in pictures:
        shutil.copy(data / "flickr8k" / path, folder / "pictures")
    rows = [(f"pictures/{Path(row['path']).name}", row["caption"], split.get(row["path"])) for row in captions]
    _write(folder / "captions.csv", ("path", "caption", "split"), [row for row in rows if row[2]])
    sentences = [(text,) for text in dict.fromkeys(row["caption"] for row in captions)]
    _write(folder / "sentences.csv", ("caption",), sentences[:1200])
    _write(folder / "more.csv", ("caption",), sentences[1100:1400])


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(path: Path, names: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
