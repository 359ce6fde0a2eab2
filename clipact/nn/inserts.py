"""Blocks that are put between the layers of a convolutional network, by name; maps keep their shape."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from torch import nn

from clipact.errors import ConfigError, choices
from clipact.nn.gating import CBAM, SpaceTimeGate, SqueezeExcite
from clipact.nn.non_local import NonLocal

INSERTS: dict[str, Callable[[int], nn.Module]] = {
    "se": SqueezeExcite,
    "cbam": CBAM,
    "space_time": SpaceTimeGate,
    "non_local": NonLocal,
    "non_local_gaussian": partial(NonLocal, pairwise="gaussian"),
    "non_local_dot_product": partial(NonLocal, pairwise="dot_product"),
}

SEES_ORDER = {"space_time"}
"""Those that tell a clip from its reverse."""


def check_inserts(inserts: Mapping[str, str], *, places: Iterable[str]) -> None:
    """Nothing; ConfigError for a place that the network does not have, or a kind that is not in INSERTS."""
    for place, kind in inserts.items():
        if place not in places:
            raise ConfigError(f"inserts names the place {place!r}; {choices(place, places)}")
        if kind not in INSERTS:
            raise ConfigError(f"inserts.{place} is {kind!r}; {choices(kind, INSERTS)}")


def with_inserts(
    layers: Mapping[str, nn.Module], inserts: Mapping[str, str], *, places: Mapping[str, int]
) -> dict[str, nn.Module]:
    """The layers in their order, each insert behind the layer of its name; `places` has the channels behind each."""
    check_inserts(inserts, places=places)
    together: dict[str, nn.Module] = {}
    for name, layer in layers.items():
        together[name] = layer
        if name in inserts:
            together[f"{name}_{inserts[name]}"] = INSERTS[inserts[name]](places[name])
    return together
