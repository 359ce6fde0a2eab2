"""State of a run in one file: weights, the optimiser's moments, averages, and where the run stands.

The file replaces the one before it as a whole, so that a kill at any moment leaves the old one or the new one. Nothing
in it is a pickle: tensors, and a line of JSON. Random numbers need no saving, because all of them follow from the seed,
the step and the place at which they are drawn.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from clipact import aliases
from clipact.atomic_write import atomic_path
from clipact.config import parse, to_table
from clipact.errors import ConfigError, TrainingError, UsageError
from clipact.train.recipe import BaseRecipe

FORMAT = 1
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW
_MAY_CHANGE = ("data.workers", "data.max_unreadable", "train.save_minutes")


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """Where a run stands.

    step             steps done
    recipe           the recipe's table: a run is not resumed under another
    retained_chunks  by the first step of a phase, how many chunks' graphs each encoder retains: measured once, because
                     rounding depends on it
    data             a hash of the training examples: files, parts and sentences, in their order
    best             the best value of the monitored metric so far, and the step that it belongs to
    unreadable_files files that could not be read, with their causes
    """

    step: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)
    retained_chunks: dict[str, tuple[int, ...]] = field(default_factory=dict)
    data: str = ""
    best: float | None = None
    best_step: int = 0
    unreadable_files: dict[str, str] = field(default_factory=dict)


def training_tensors(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """Return what training changes: the parameters of these names, and every buffer that is saved with the model."""
    parameters: Mapping[str, Tensor] = dict(model.named_parameters())
    saved = model.state_dict(keep_vars=True)
    buffers = {name: tensor for name, tensor in model.named_buffers() if name in saved}
    return {name: parameters[name] for name in names} | buffers


class RunState:
    """Everything that a step changes, saved and loaded.

    Args:
        model: The module that holds all weights.
        optimizer: Its moments are part of the state.
        names: The parameters that are trained in some step.
        copies: Other versions of the model's tensors that are part of the state, by their name, such as "ema".
        scaler: Of the loss, in 16-bit floating point.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.AdamW,
        names: tuple[str, ...],
        *,
        copies: Mapping[str, Mapping[str, Tensor]] | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.model, self.optimizer, self.names = model, optimizer, names
        self.copies, self.scaler = copies or {}, scaler

    def save(self, path: Path, progress: RunProgress) -> None:
        """Write the file at `path`; TrainingError when the disk refuses."""
        facts = {"format": FORMAT, "progress": dataclasses.asdict(progress)}
        if self.scaler is not None:
            facts["scaler"] = self.scaler.state_dict()
        tensors = {name: tensor.detach().contiguous() for name, tensor in self._tensors().items()}
        try:
            with atomic_path(path) as part:
                save_file(tensors, part, metadata={"clipact": json.dumps(facts)})
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error

    def load(self, path: Path, *, recipe: BaseRecipe | None = None) -> RunProgress:
        """Bring back what `save` wrote.

        TrainingError when it is not there, damaged, or of another model; UsageError when it was saved under another
        recipe than this one. Nothing is changed then.
        """
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads((file.metadata() or {})["clipact"])
                saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if facts["format"] != FORMAT:
                raise TrainingError(f"{path}: format is {facts['format']!r}; this version of clipact reads {FORMAT}")
            progress = parse(RunProgress, aliases.rename(facts["progress"], "training state"))
        except FileNotFoundError:
            raise TrainingError(f"{path} is not there: nothing to resume; leave out --resume to begin") from None
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise TrainingError(f"{path} is no state of a clipact run, or is damaged: {error}") from error
        if recipe is not None:
            refuse_changes(_read_now(aliases.rename(progress.recipe, "recipe"), type(recipe)), to_table(recipe))
        self._fill(saved, path)
        if self.scaler is not None:
            self.scaler.load_state_dict(facts["scaler"])
        return progress

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": tensor for name, tensor in training_tensors(self.model, self.names).items()}
        parameters = dict(self.model.named_parameters())
        for name in self.names:
            moments: Mapping[str, Tensor] = self.optimizer.state.get(parameters[name], {})
            tensors |= {f"optimizer.{name}.{kind}": tensor for kind, tensor in moments.items()}
        for copy, values in self.copies.items():
            tensors |= {f"{copy}.{name}": tensor for name, tensor in values.items()}
        return tensors

    @torch.no_grad()
    def _fill(self, saved: Mapping[str, Tensor], path: Path) -> None:
        here = self._tensors()
        known = {*here, *(f"optimizer.{name}.{kind}" for name in self.names for kind in _MOMENTS)}
        renamed = aliases.rename_weights(saved, known.__contains__)
        saved = {renamed.get(name, name): tensor for name, tensor in saved.items()}
        expected = {name for name in here if not name.startswith("optimizer.")}
        if expected != {name for name in saved if not name.startswith("optimizer.")}:
            raise TrainingError(f"{path} is of another model: its tensors have other names")
        if unlike := next((name for name in sorted(expected) if here[name].shape != saved[name].shape), None):
            raise TrainingError(
                f"{path} is of another model: {unlike} has the shape {list(saved[unlike].shape)}, here "
                f"{list(here[unlike].shape)}"
            )
        for name in expected:
            here[name].copy_(saved[name])
        parameters = dict(self.model.named_parameters())
        for name in self.names:
            kinds = {
                key.rpartition(".")[2]: tensor
                for key, tensor in saved.items()
                if key.rpartition(".")[0] == f"optimizer.{name}"
            }
            if kinds:
                device = parameters[name].device
                self.optimizer.state[parameters[name]] = {kind: tensor.to(device) for kind, tensor in kinds.items()}


def refuse_changes(then: dict[str, Any], now: dict[str, Any]) -> None:
    """UsageError when a run would go on under another recipe."""
    before, after = _flat(then), _flat(now)
    changed = [key for key in before | after if before.get(key) != after.get(key) and key not in _MAY_CHANGE]
    if changed:
        changes = ", ".join(f"{key} is {after.get(key)!r} and was {before.get(key)!r}" for key in changed)
        raise UsageError(
            f"the recipe has changed since this run began: {changes}; take --set to put it back, or another --out"
        )


def _read_now(table: dict[str, Any], kind: type[BaseRecipe]) -> dict[str, Any]:
    """A recipe's table with the defaults of keys that came after it was saved; as it is where it cannot be read now."""
    try:
        return to_table(parse(kind, table))
    except ConfigError:
        return table


def _flat(table: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat
