"""Where a tower's parameters lie, counted in layers from its output: found in how towers are built, for all of them."""

from dataclasses import dataclass, field

from torch import nn

from clipact.towers.parts import split


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The numbered layers of a tower.

    count   how many there are; 0 for a tower that has none to tell apart
    depths  how many layers each parameter lies below the head: 0 above the last layer, 1 in it, count + 1 in the stem
    """

    count: int = 0
    depths: dict[str, int] = field(default_factory=dict)


def find_layers(tower: nn.Module) -> Layers:
    """The longest stack of numbered layers, with the stacks that stand beside it; a head's own blocks are no layers."""
    heads = {module for head in split(tower).modules for module in head.modules()}
    modules = [(name, module) for name, module in tower.named_modules() if module not in heads]
    stacks = [(n, m) for n, m in modules if isinstance(m, (nn.ModuleList, nn.Sequential))]
    # A stage's blocks lie inside a stack of stages: the outer one counts, and is numbered.
    outer = [(n, m) for n, m in stacks if not any(n.startswith(f"{other}.") for other, _ in stacks)]
    numbered = [(n, m) for n, m in outer if len(m) and all(child.isdecimal() for child, _ in m.named_children())]
    if not numbered:
        return Layers()
    longest = max(numbered, key=lambda named: len(named[1]))[0]
    # A ResNet's stages stand side by side (layer1, layer2, ...): together they are the stack.
    beside = [(n, m) for n, m in numbered if n.rpartition(".")[0] == longest.rpartition(".")[0]]
    layers = [f"{n}.{child}." for n, m in beside for child, _ in m.named_children()]
    depths: dict[str, int] = {}
    met = False
    for name, _ in tower.named_parameters():
        place = next((i for i, layer in enumerate(layers) if name.startswith(layer)), None)
        met = met or place is not None
        if place is not None:
            depths[name] = len(layers) - place
        else:
            # CLIP declares its projection, a bare parameter, before the layers that it follows.
            depths[name] = 0 if met or "proj" in name.rpartition(".")[2] else len(layers) + 1
    return Layers(count=len(layers), depths=depths)
