"""The one engine from videos to embeddings: rows in, their embeddings out, in order.

Rows are cut into units: as many as fill one batch, most often one. On a CPU a worker decodes and encodes a unit by
itself, with its share of the cores: convolutions of a few pictures wait for each other on two cores, two workers never
do. For a GPU workers decode row by row, and whoever asks for the embeddings encodes unit by unit.

Units are the same whatever is resumed, and no row's features depend on what is encoded beside it.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import batched, chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from clipact.cache import content_key
from clipact.data.fingerprint import file_digest
from clipact.embed.clip_source import ClipSource
from clipact.embed.feature_cache import ClipFeatures, FeatureCache
from clipact.embed.feature_collector import BatchEncoder, FeatureCollector
from clipact.embed.journal import Journal
from clipact.embed.options import EmbedOptions
from clipact.embed.video_embedding import VideoEmbedding
from clipact.engines.clip_encoder import ClipEncoder
from clipact.errors import VideoError
from clipact.video.augment import Augment
from clipact.video.clip import Clip
from clipact.video.collect import ClipLedger, collect_frames
from clipact.video.load import Wanted, load_wanted, work_ahead
