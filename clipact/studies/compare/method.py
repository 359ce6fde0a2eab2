"""Methods that are compared, by name, such as "zero-shot:mini", "few-shot:mini@8" or "i3d+cbam"."""

from dataclasses import dataclass
from typing import Literal

from clipact.clip_spec import ClipSpec
from clipact.errors import UsageError, choices
from clipact.evaluate.fit_probes import ProbeConfig
from clipact.models import zoo
from clipact.models.checkpoint import weights_hash
from clipact.train.baselines import BASELINES, baseline_recipe

MethodKind = Literal["zero-shot", "probe", "knn", "few-shot"]

_PLAIN = ("zero-shot", "probe", "knn", "few-shot")
_TOWER = "videomae"


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of a comparison, which is a row of its table.

    name        as it was asked for, and is shown
    kind        "trained": a baseline by its name in `clipact.train.baselines`, `baseline`; "pretrained": the same after
                learning without labels; else what is made of a model's embeddings
    model       whose embeddings, or the one that a baseline stands on; "" for what begins at random
    number      of examples a label, or of neighbours
    """

    name: str
    kind: Literal["zero-shot", "probe", "knn", "few-shot", "trained", "pretrained"]
    model: str = ""
    number: int | None = None
    baseline: str = ""

    @property
    def stochastic(self) -> bool:
        """Whether another seed gives another result."""
        return self.kind not in ("zero-shot", "probe", "knn")

    @property
    def trains_whole(self) -> bool:
        """Whether its tower is trained, rather than a head over another's frozen frames."""
        return self.baseline != "" and BASELINES[self.baseline.partition(":")[0].partition("+")[0]].on != "model"

    @property
    def settings_used(self) -> tuple[str, ...]:
        """The tables of `CompareSettings` that its result depends on."""
        learning = ("whole" if self.trains_whole else "head",) if self.baseline else ()
        return ("clip", *learning, *(("pretraining",) if self.kind == "pretrained" else ()))

    def probe_config(self, seed: int) -> ProbeConfig:
        """Return how its probe is fitted."""
        if self.kind == "knn":
            return ProbeConfig(kind="nearest") if self.number is None else ProbeConfig(kind="nearest", k=self.number)
        return ProbeConfig(shots=self.number, seed=seed)

    def check(self, clip: ClipSpec) -> None:
        """Raise UsageError if its model is not there, or its network does not take such clips."""
        if self.model:
            zoo.find_folder(self.model)
        if self.kind == "trained":
            baseline_recipe(self.baseline, clip=clip)

    def model_key(self) -> str:
        """Return what identifies its model: a folder's hash, else its name."""
        folder = zoo.find_folder(self.model) if self.model else None
        return self.model if folder is None else weights_hash(folder)


def parse_method(name: str) -> Method:
    """Parse the name of a method; UsageError for one that is none."""
    kind, _, rest = name.partition(":")
    if kind in _PLAIN:
        return _of_model(name, kind, rest)
    if name == f"{_TOWER}+pretraining":
        return Method(name=name, kind="pretrained", baseline=_TOWER)
    if name == _TOWER:
        return Method(name=name, kind="trained", baseline="vivit-joint")
    base, _, insert = kind.partition("+")
    if base not in BASELINES:
        raise UsageError(f"no row is called {name!r}; {choices(base, [*_PLAIN, *BASELINES, f'{_TOWER}+pretraining'])}")
    stands_on = rest or ("mini" if BASELINES[base].on == "model" else "")
    baseline = f"{base}+{insert.replace('-', '_')}" if insert else base
    return Method(
        name=name,
        kind="trained",
        model=stands_on,
        baseline=f"{baseline}:{stands_on}" if stands_on or rest else baseline,
    )


def _of_model(name: str, kind: str, rest: str) -> Method:
    model, at, number = rest.rpartition("@")
    if not (at and number.isdecimal() and kind in ("few-shot", "knn")):
        model, number = rest, ""
    if not model:
        raise UsageError(f"{name!r} names no model; write {kind}:mini, or a model's folder in place of mini")
    if number and int(number) < 1:
        raise UsageError(f"{name!r} has {number} behind @; it takes 1 or more")
    if kind == "few-shot" and not number:
        raise UsageError(f"{name!r} does not say how many clips a label there are; write {name}@8 for eight")
    found: dict[str, MethodKind] = {"zero-shot": "zero-shot", "probe": "probe", "knn": "knn", "few-shot": "few-shot"}
    return Method(name=name, kind=found[kind], model=model, number=int(number) if number else None)
