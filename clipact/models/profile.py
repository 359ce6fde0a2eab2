"""Profile a model: its parameters, and the floating-point operations and time of one clip, measured here."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from clipact.clip_spec import ClipSpec
from clipact.models.dual_encoder import DualEncoder


@dataclass(frozen=True, kw_only=True)
class ModelProfile:
    """Describe what encoding one clip takes.

    gflops        10^9 floating-point operations, a multiplication and an addition being two, as torch's counter
                  (torch.utils.flop_counter) finds them: matrix products, convolutions and attention, nothing else
    milliseconds  the fastest of several, on the device and with the threads that torch uses
    """

    gflops: float
    milliseconds: float


def count_parameters(encoder: DualEncoder) -> dict[str, int]:
    """Count the parameters of each tower."""
    return {
        "visual": sum(one.numel() for one in encoder.visual.parameters()),
        "text": sum(one.numel() for one in encoder.text.parameters()),
    }


def profile_model(encoder: DualEncoder, *, spec: ClipSpec | None = None, repeats: int = 5) -> ModelProfile:
    """Measure the cost of one clip, alone in its batch.

    Args:
        encoder: The model, on its device.
        spec: How the clip is prepared; by default as the model's own are.
        repeats: How often it is timed; the fastest counts.

    Raises:
        ModelError: The tower cannot take this number of frames.
    """
    spec = spec or encoder.spec
    place = encoder.log_scale.device
    video = torch.zeros(1, spec.frames, len(spec.mean), *spec.size, device=place)
    with torch.inference_mode():
        encoder.encode_video(video)  # what is made at the first call does not count
        best = min(_seconds(encoder, video) for _ in range(repeats))
    return ModelProfile(gflops=_flops(encoder, video) / 1e9, milliseconds=best * 1e3)


def _seconds(encoder: DualEncoder, video: Tensor) -> float:
    _wait(video.device)
    begun = time.perf_counter()
    encoder.encode_video(video)
    _wait(video.device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def _flops(encoder: DualEncoder, video: Tensor) -> int:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # The counter knows neither a CPU's fused attention nor torch's fused encoder layers: their plain forms are counted.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            encoder.encode_video(video)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops())
