"""Recognise human actions in video from plain words.

The public face: these names and no others. Each is imported when it is first asked for (PEP 562), so that
`import clipact` costs nothing and the command line starts at once.
"""

from typing import TYPE_CHECKING, Any

from clipact._version import __version__ as __version__

if TYPE_CHECKING:
    from clipact.classifier import ZeroShotClassifier
    from clipact.clip_spec import ClipSpec
    from clipact.dual_encoder import DualEncoder
    from clipact.errors import ClipactError
    from clipact.prediction import Prediction
    from clipact.prompts import LabelSet, PromptSet
    from clipact.recognizer import Recognizer
    from clipact.supervised import SupervisedClassifier
    from clipact.video.clip import Clip
    from clipact.video.load import load_clip
    from clipact.zoo import load as load_model

__all__ = [
    "Clip",
    "ClipSpec",
    "ClipactError",
    "DualEncoder",
    "LabelSet",
    "Prediction",
    "PromptSet",
    "Recognizer",
    "SupervisedClassifier",
    "ZeroShotClassifier",
    "load_clip",
    "load_model",
]

_HOMES = {
    "Clip": "clipact.video.clip",
    "ClipSpec": "clipact.clip_spec",
    "ClipactError": "clipact.errors",
    "DualEncoder": "clipact.dual_encoder",
    "LabelSet": "clipact.prompts",
    "Prediction": "clipact.prediction",
    "PromptSet": "clipact.prompts",
    "Recognizer": "clipact.recognizer",
    "SupervisedClassifier": "clipact.supervised",
    "ZeroShotClassifier": "clipact.classifier",
    "load_clip": "clipact.video.load",
    "load_model": "clipact.zoo",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clipact' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), "load" if name == "load_model" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
