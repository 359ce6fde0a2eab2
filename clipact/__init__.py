"""Recognise human actions in video from plain words.

The public names, and no others. Each is imported at its first use (PEP 562), so that `import clipact` costs nothing
and the command line starts at once.
"""

from typing import TYPE_CHECKING, Any

from clipact._version import __version__ as __version__

if TYPE_CHECKING:
    from clipact.classify.base import Recognizer
    from clipact.classify.prediction import Prediction
    from clipact.classify.supervised import SupervisedClassifier
    from clipact.classify.zero_shot import ZeroShotClassifier
    from clipact.clip_spec import ClipSpec
    from clipact.embed.embed import embed_text, embed_videos
    from clipact.errors import ClipactError
    from clipact.models.dual_encoder import DualEncoder
    from clipact.models.zoo import load_model
    from clipact.prompts import LabelSet, PromptSet
    from clipact.video.clip import Clip
    from clipact.video.load import load_clip

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
    "embed_text",
    "embed_videos",
    "load_clip",
    "load_model",
]

_HOMES = {
    "Clip": "clipact.video.clip",
    "ClipSpec": "clipact.clip_spec",
    "ClipactError": "clipact.errors",
    "DualEncoder": "clipact.models.dual_encoder",
    "LabelSet": "clipact.prompts",
    "Prediction": "clipact.classify.prediction",
    "PromptSet": "clipact.prompts",
    "Recognizer": "clipact.classify.base",
    "SupervisedClassifier": "clipact.classify.supervised",
    "ZeroShotClassifier": "clipact.classify.zero_shot",
    "embed_text": "clipact.embed.embed",
    "embed_videos": "clipact.embed.embed",
    "load_clip": "clipact.video.load",
    "load_model": "clipact.models.zoo",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clipact' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
