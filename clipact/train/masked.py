"""Masked pretraining without labels: a ViViT predicts masked patches of clips (VideoMAE, arXiv 2203.12602).

The trained tower is what `clipact train` begins from. OUT/pictures has reconstructions of held-out clips, one file each
time that the run is validated.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from clipact.clip_spec import ClipSpec
from clipact.data.fingerprint import seed_from
from clipact.data.sources import TrainingExample, files_seen_csv
from clipact.data.unlabelled import UnlabelledConfig, read_clips
from clipact.errors import ConfigError
from clipact.losses import masked_mse, pick_patches
from clipact.models.checkpoint import FILES_SEEN
from clipact.models.dual_encoder import PRECISIONS
from clipact.models.save_checkpoint import save_visual
from clipact.models.towers.vivit import ViViT
from clipact.train.chunks import seeded
from clipact.train.encoded_batches import prepare_frames
from clipact.train.loader import Batch, ClipTextDataset, Loader, ReadConfig
from clipact.train.masked_autoencoder import (
    DecoderConfig,
    Mask,
    MaskConfig,
    MaskedAutoencoder,
    draw_mask,
    draw_reconstruction,
    write_picture,
)
from clipact.train.recipe import BaseRecipe
from clipact.train.trainer import StepResult, Trainer, optimizer_step

_SHOWN = 2  # clips in a picture


@dataclass(frozen=True, kw_only=True)
class PretrainValidationSet(UnlabelledConfig):
    """Clips that are no training data; its metrics begin with its name."""

    name: str


@dataclass(frozen=True, kw_only=True)
class PretrainData(ReadConfig):
    """Training data and how they are read; `sources` are mixed in one stream."""

    sources: tuple[UnlabelledConfig, ...]


@dataclass(frozen=True, kw_only=True)
class PretrainValidation:
    """What reconstruction is measured on, and how often: every so many steps, 0 for after the last one alone.

    The error on the first set marks the best step.
    """

    sets: tuple[PretrainValidationSet, ...]
    every_steps: int = 0

    def __post_init__(self) -> None:
        if self.every_steps < 0:
            raise ConfigError(f"validation.every_steps is {self.every_steps}; it is a number of steps, or 0")
        names = [one.name for one in self.sets]
        if not names or len(set(names)) < len(names):
            raise ConfigError(
                f"validation.sets have the names {names}; there is one set at least, under [[validation.sets]], and "
                "each has its own name: an error on the clips that are learnt from would show nothing"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(BaseRecipe):
    """A whole run: the encoder is a ViViT with attention "joint" and class_token "none"."""

    encoder: ViViT.Config
    clip: ClipSpec
    data: PretrainData
    validation: PretrainValidation
    mask: MaskConfig = field(default_factory=MaskConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


class MaskedTrainer(Trainer):
    """Training loop of a masked autoencoder; ConfigError where held-out clips are training data, too."""

    def __init__(self, recipe: PretrainRecipe, *, data: Path, device: torch.device) -> None:
        self.recipe = recipe
        with seeded(seed_from(recipe.seed, "start")):
            self.model = MaskedAutoencoder(ViViT(recipe.encoder, spec=recipe.clip), recipe.decoder).to(device)
        self._draw_mask(1, "any")  # a ratio that masks nothing, or all, is said now
        examples = read_clips(recipe.data.sources, data, frames=recipe.clip.frames)
        self.validation_sets = {
            one.name: read_clips([one], data, frames=recipe.clip.frames) for one in recipe.validation.sets
        }
        _refuse_shared(examples, self.validation_sets)
        names = (name for name, _ in self.model.named_parameters() if not name.startswith("encoder.head."))
        super().__init__(
            recipe,
            self.model,
            tuple(names),
            examples=examples,
            validate_every=recipe.validation.every_steps,
            device=device,
        )

    @property
    def phases(self) -> list[tuple[int, int]]:
        """Return the one phase: the same parameters are trained from the first step to the last."""
        return [(0, self.steps)]

    def set_trainable(self, *, step: int) -> None:
        """Set training mode: all but the encoder's head is trained, which is for fine-tuning."""
        self.model.train()

    def run_steps(self, out: Path, first: int, last: int) -> Iterator[tuple[StepResult, float]]:
        """Yield the result of each step as it is taken, and the seconds that it waited for data."""
        self.set_trainable(step=first)
        recipe = self.recipe
        samples = ClipTextDataset(self.examples, recipe.clip, seed=recipe.seed, augment=recipe.data.augment)
        loader = self._loader(samples, shuffled=True)
        batches = loader.batches(first, last)
        for step in range(first, last):
            begun = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - begun
            yield self._take_step(batch, step), waited

    @torch.no_grad()
    def validate(self, out: Path) -> dict[str, float]:
        """Return for each validation set, over its masked pixels, normalised patch by patch, the same ones each time:

        explained   the share of the variance that is predicted, 1 - error / mean_error: above 0 is better than the mean
        error       the mean squared error
        mean_error  that of predicting each patch's mean
        """
        found: dict[str, float] = {}
        for name, examples in self.validation_sets.items():
            error = total = count = 0.0
            for number, (video, mask) in enumerate(self._validation_clips(name, examples)):
                predicted = self.model(video, mask)
                target = pick_patches(self.model.target(video), mask.masked)
                error += (predicted - target).double().square().sum().item()
                total += target.double().square().sum().item()
                count += target.numel()
                if number == 0 and name == self.recipe.validation.sets[0].name:
                    shown = _rows_of(mask, slice(_SHOWN))
                    picture = draw_reconstruction(self.model, video[:_SHOWN], shown, predicted[:_SHOWN])
                    write_picture(picture, out / "pictures" / f"{self.run_progress.step:06}.png")
            explained = 1 - error / total if total else 0.0
            found |= {
                f"{name}.explained": explained,
                f"{name}.error": error / count,
                f"{name}.mean_error": total / count,
            }
        return found

    def monitored(self, metrics: dict[str, float]) -> float | None:
        """Return the explained variance of the first set."""
        return metrics[f"{self.recipe.validation.sets[0].name}.explained"]

    def save_model(self, folder: Path, metrics: dict[str, float]) -> None:
        """Write the encoder as a folder: a visual tower alone."""
        recipe = self.recipe
        save_visual(
            self.model.encoder,
            folder,
            name=recipe.name,
            precision=recipe.train.precision,
            trained_on=recipe.trained_on,
            license=recipe.license,
            dtype=torch.float16 if recipe.train.save_as == "fp16" else None,
            notes={"step": self.run_progress.step, "figures": metrics},
            files={FILES_SEEN: self._files_seen},
        )

    def _take_step(self, batch: Batch, step: int) -> StepResult:
        self.optimizer.zero_grad(set_to_none=True)
        loss, autocast = 0.0, PRECISIONS[self.recipe.train.precision]
        start, drawn = 0, self._draw_mask(len(batch), "step", step, 0)
        for piece in batch.visual:
            video = self._prepare(piece)
            mask = _rows_of(drawn, slice(start, start + len(piece)))
            start += len(piece)
            with torch.autocast(self.device.type, dtype=autocast, enabled=autocast is not None):
                predicted = self.model(video, mask)
            part = masked_mse(predicted, self.model.target(video), masked=mask.masked) * (len(piece) / len(batch))
            torch.autograd.backward(part if self.scaler is None else self.scaler.scale(part))
            loss += part.item()
        norm = optimizer_step(self.optimizer, loss=loss, scaler=self.scaler, clip_norm=self.recipe.optim.clip_norm)
        return StepResult(loss=loss, gradient_norm=norm, clips=len(batch))

    def _validation_clips(
        self, name: str, examples: Sequence[TrainingExample]
    ) -> Iterator[tuple[Float[Tensor, "b t c h w"], Mask]]:
        """Every clip of a set once, a piece at a time, always under the same mask."""
        samples = ClipTextDataset(examples, self.recipe.clip, seed=0)
        for number, batch in enumerate(self._loader(samples, shuffled=False).one_epoch()):
            start, drawn = 0, self._draw_mask(len(batch), "held out", name, number)
            for piece in batch.visual:
                yield self._prepare(piece), _rows_of(drawn, slice(start, start + len(piece)))
                start += len(piece)

    def _draw_mask(self, clips: int, *what: int | str) -> Mask:
        recipe, encoder = self.recipe, self.model.encoder
        height, width = recipe.clip.size
        generator = torch.Generator().manual_seed(seed_from(recipe.seed, "mask", *what))
        mask = draw_mask(
            recipe.mask,
            clips=clips,
            steps=recipe.clip.frames // encoder.config.tubelet,
            places=height * width // encoder.config.patch**2,
            generator=generator,
        )
        device = self.model.mask_token.device
        return Mask(visible=mask.visible.to(device), masked=mask.masked.to(device))

    def _prepare(self, piece: UInt8[Tensor, "b t h w c"] | Float[Tensor, "b ..."]) -> Float[Tensor, "b t c h w"]:
        return prepare_frames(piece, self.recipe.clip, device=self.device)

    def _loader(self, samples: ClipTextDataset, *, shuffled: bool) -> Loader:
        data, train = self.recipe.data, self.recipe.train
        return Loader(
            samples,
            batch=train.batch,
            chunk=train.chunk,
            workers=data.workers,
            shuffled=shuffled,
            unreadable_files=self.unreadable_files,
            max_unreadable=data.max_unreadable,
        )

    @cached_property
    def _files_seen(self) -> str:
        # It reads every file: once a run.
        return files_seen_csv(self.examples)


def _rows_of(mask: Mask, rows: slice) -> Mask:
    return Mask(visible=mask.visible[rows], masked=mask.masked[rows])


def _refuse_shared(examples: Sequence[TrainingExample], held_out: dict[str, tuple[TrainingExample, ...]]) -> None:
    learnt = {Path(example.path).resolve() for example in examples}
    for name, held in held_out.items():
        shared = [example.file for example in held if Path(example.path).resolve() in learnt]
        if shared:
            raise ConfigError(
                f"{len(shared)} of the {len(held)} files of validation.sets {name!r} are learnt from, {shared[0]} "
                "among them; a held-out file is in no source of data.sources"
            )
