"""Modules whose weights are about to be overwritten, made without drawing any."""

from typing import Any

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

# Those of torch.nn.init that ask a mode by their own names and then go on without it: newer torch has more of them.
_DRAWS = {Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_, init.kaiming_uniform_}


class NoRandomWeights(TorchFunctionMode):
    """Leaves new weights as the memory was: a checkpoint overwrites each of them (ViT-B-32: 0.1 s, not 3.1)."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The call itself, unless it draws numbers in place."""
        named = kwargs or {}
        if function in _DRAWS:
            return args[0] if args else named["tensor"]
        return function(*args, **named)
