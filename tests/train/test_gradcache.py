"""The cached gradient is plain autograd's, whatever the encoders, the inputs and the chunks are."""

import random
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clipact.errors import ModelError, TrainingError, UsageError
from clipact.train.chunks import Encoder, seeded, split_chunks
from clipact.train.gradcache import cached_step
from clipact.train.verify_gradient import plain_step, verify_gradient

DIM = 5


class Net(nn.Module):
    """Two layers around dropout, which counts its calls and the rows that it saw."""

    def __init__(self, width: int = 7, *, dropout: float = 0.3, middle: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(width, 6)
        self.middle = middle or nn.Tanh()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(6, DIM)
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return F.normalize(self.last(self.dropout(self.middle(self.first(x)))), dim=-1)


class Words(nn.Module):
    """The sum of a sentence's byte embeddings, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(256, DIM)
        self.seen: list[str] = []

    def forward(self, sentences: list[str]) -> Tensor:
        self.seen += sentences
        rows = [self.table(torch.tensor(list(sentence.encode()))).sum(0) for sentence in sentences]
        return F.normalize(F.dropout(torch.stack(rows), 0.2, self.training), dim=-1)


class Loss:
    """A contrastive loss with a learnt scale, kept apart from clipact.losses."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        self.log_scale = nn.Parameter(torch.tensor(1.5, dtype=dtype))
        self.calls = 0

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        self.calls += 1
        logits = self.log_scale.exp() * a @ b.T
        target = torch.arange(len(a), device=a.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def encoder(name: str, module: nn.Module) -> Encoder:
    return Encoder(name, module, module)


def gradients(step, encoders, inputs, loss, **options) -> dict[str, Tensor]:
    """The gradient of every parameter after one step, and the loss."""
    parameters = {f"{e.name}.{n}": p for e in encoders for n, p in e.module.named_parameters()}
    parameters["log_scale"] = loss.log_scale
    for parameter in parameters.values():
        parameter.grad = None
    value = step(encoders, inputs, loss_fn=loss, **options)
    found = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
    return found | {"loss": value}


def assert_exact(encoders, inputs, *, loss=None, tolerance=1e-12, retain=0, **options) -> dict[str, Tensor]:
    loss = loss or Loss()
    plain = gradients(plain_step, encoders, inputs, loss, **options)
    cached = gradients(cached_step, encoders, inputs, loss, retain=retain, **options)
    assert plain.keys() == cached.keys()
    for name, true in plain.items():
        assert (cached[name] - true).norm() <= tolerance * true.norm(), name
    return cached


def pair(rows: int = 10, **options) -> tuple[list[Encoder], list[Tensor]]:
    torch.manual_seed(0)
    encoders = [encoder("video", Net(**options).double()), encoder("text", Net(**options).double())]
    return encoders, [torch.randn(rows, 7, dtype=torch.float64) for _ in encoders]


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(2, 17),
    chunk_size=st.integers(1, 20),
    retain=st.one_of(st.integers(0, 20), st.tuples(st.integers(0, 20), st.integers(0, 20))),
    dropout=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**63 - 1),
)
def test_equals_plain_autograd_over_the_same_chunks(rows, chunk_size, retain, dropout, seed):
    encoders, inputs = pair(rows, dropout=dropout)
    assert_exact(encoders, inputs, chunk_size=chunk_size, retain=retain, seed=seed)


@pytest.mark.parametrize("retain", [0, 2, 99])
def test_equals_the_full_batch_where_nothing_is_random(retain):
    encoders, inputs = pair(dropout=0.0)
    loss = Loss()
    whole = gradients(plain_step, encoders, inputs, loss, chunk_size=10, seed=0)
    cached = gradients(cached_step, encoders, inputs, loss, chunk_size=3, seed=1, retain=retain)
    for name, true in whole.items():
        assert (cached[name] - true).norm() <= 1e-12 * true.norm(), name


def test_the_loss_is_taken_once_and_so_is_the_gradient_of_its_scale():
    encoders, inputs = pair()
    loss = Loss()
    seen = gradients(cached_step, encoders, inputs, loss, chunk_size=2, seed=3)
    assert loss.calls == 1
    step = 1e-6
    with torch.no_grad():
        embedded = [
            torch.cat([chunk.embed() for chunk in split_chunks(e, x, chunk_size=2, seed=3, place=i)[0]])
            for i, (e, x) in enumerate(zip(encoders, inputs, strict=True))
        ]
        loss.log_scale += step
        above = loss(*embedded)
        loss.log_scale -= 2 * step
        below = loss(*embedded)
    torch.testing.assert_close(seen["log_scale"], (above - below) / (2 * step), rtol=1e-6, atol=0)


def test_gradients_add_to_those_that_are_there():
    encoders, inputs = pair()
    once = gradients(cached_step, encoders, inputs, Loss(), chunk_size=4, seed=0)
    loss = Loss()
    cached_step(encoders, inputs, loss_fn=loss, chunk_size=4, seed=0)
    for name, parameter in encoders[0].module.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[f"video.{name}"])


@pytest.mark.parametrize("retain", [0, 1, 3])
def test_tied_towers(retain):
    torch.manual_seed(0)
    net = Net().double()
    inputs = [torch.randn(7, 7, dtype=torch.float64) for _ in range(2)]
    assert_exact([encoder("a", net), encoder("b", net)], inputs, chunk_size=3, seed=5, retain=retain)


def test_any_number_of_encoders():
    torch.manual_seed(0)
    encoders = [encoder(name, Net().double()) for name in "abc"]
    inputs = [torch.randn(6, 7, dtype=torch.float64) for _ in encoders]

    class Triple(Loss):
        def __call__(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            return super().__call__(a, b) + super().__call__(b, c)

    assert_exact(encoders, inputs, loss=Triple(), chunk_size=4, seed=0, retain=(0, 1, 2))


@dataclass(frozen=True)
class Masked:
    """Rows with a mask, and a number that has no rows."""

    x: Tensor
    mask: Tensor
    power: float


def test_inputs_are_tensors_dicts_dataclasses_lists():
    torch.manual_seed(0)
    net = Net().double()
    x, mask = torch.randn(8, 7, dtype=torch.float64), torch.rand(8, 7) > 0.3
    plain = assert_exact([encoder("a", net), encoder("b", net)], [x * mask, x], chunk_size=3, seed=0)
    forms = {
        "dict": ({"x": x, "mask": mask, "power": 1.0}, lambda d: net(d["x"] ** d["power"] * d["mask"])),
        "nested": ({"x": {"y": x}, "mask": mask}, lambda d: net(d["x"]["y"] * d["mask"])),
        "dataclass": (Masked(x, mask, 1.0), lambda d: net(d.x**d.power * d.mask)),
        "list": (list(zip(x, mask, strict=True)), lambda rows: net(torch.stack([r * m for r, m in rows]))),
    }
    for form, (inputs, encode) in forms.items():
        seen = assert_exact([Encoder("a", net, encode), encoder("b", net)], [inputs, x], chunk_size=3, seed=0)
        for name, true in plain.items():
            torch.testing.assert_close(seen[name], true, msg=f"{form} {name}")


def test_fields_of_unlike_length_are_refused():
    net = Net()
    with pytest.raises(UsageError, match="has 3 and 4 rows"):
        split_chunks(encoder("video", net), {"x": torch.ones(3), "mask": torch.ones(4)}, chunk_size=2, seed=0)
    with pytest.raises(UsageError, match="has no rows"):
        split_chunks(encoder("video", net), {"x": 3}, chunk_size=2, seed=0)
    with pytest.raises(UsageError, match="has 0 rows"):
        split_chunks(encoder("video", net), torch.ones(0, 3), chunk_size=2, seed=0)
    with pytest.raises(UsageError, match="chunk_size is 0"):
        split_chunks(encoder("video", net), torch.ones(3), chunk_size=0, seed=0)
    with pytest.raises(UsageError, match="2 encoders, 1 inputs"):
        cached_step([encoder("a", net)] * 2, [torch.ones(3, 7)], loss_fn=Loss(), chunk_size=1, seed=0)


SENTENCES = ["a man runs", "a dog", "a man runs", "she waves", "a dog", "a man runs", "he sits"]


@pytest.mark.parametrize("retain", [0, 1, 9])
def test_each_distinct_sentence_is_encoded_once_and_its_gradients_add_up(retain):
    torch.manual_seed(0)
    words, net = Words().double(), Net().double()
    x = torch.randn(len(SENTENCES), 7, dtype=torch.float64)
    encoders = [encoder("video", net), encoder("text", words)]
    assert_exact(encoders, [x, SENTENCES], chunk_size=3, seed=0, retain=retain)
    words.seen.clear()
    cached_step(encoders, [x, SENTENCES], loss_fn=Loss(), chunk_size=3, seed=0, retain=99)
    assert sorted(words.seen) == sorted(set(SENTENCES))


def test_sentences_given_once_or_in_a_wrapper_that_hides_them_have_the_same_gradient_without_dropout():
    torch.manual_seed(0)
    words, net = Words().double().eval(), Net().double().eval()
    x = torch.randn(len(SENTENCES), 7, dtype=torch.float64)
    loss = Loss()
    once = gradients(cached_step, [encoder("v", net), encoder("t", words)], [x, SENTENCES], loss, chunk_size=3, seed=0)
    hidden = [[sentence] for sentence in SENTENCES]
    every = Encoder("t", words, lambda rows: words([row[0] for row in rows]))
    repeated = gradients(cached_step, [encoder("v", net), every], [x, hidden], loss, chunk_size=3, seed=0)
    for name, true in repeated.items():
        torch.testing.assert_close(once[name], true)


def test_a_frozen_encoder_is_encoded_once():
    encoders, inputs = pair()
    encoders[1].module.requires_grad_(False)
    found = assert_exact(encoders, inputs, chunk_size=3, seed=0, retain=1)
    assert not any(name.startswith("text") for name in found)
    for e in encoders:
        e.module.rows.clear()
    cached_step(encoders, inputs, loss_fn=Loss(), chunk_size=3, seed=0, retain=1)
    assert encoders[1].module.rows == [3, 3, 3, 1]
    assert encoders[0].module.rows == [3, 3, 3, 1] + [3, 3, 3]


def test_an_encoder_that_the_loss_ignores_gets_no_gradient():
    encoders, inputs = pair()
    cached_step(encoders, inputs, loss_fn=lambda a, b: a.sum(), chunk_size=3, seed=0, retain=1)
    assert all(p.grad is None for p in encoders[1].module.parameters())
    assert all(p.grad is not None for p in encoders[0].module.parameters())


def test_the_random_numbers_of_others_are_left_alone():
    encoders, inputs = pair()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    cached_step(encoders, inputs, loss_fn=Loss(), chunk_size=3, seed=0)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_random_numbers_hang_on_seed_encoder_and_chunk_alone():
    e = encoder("a", Net(dropout=0.5))
    x = torch.ones(6, 7)
    first, second = (chunk.embed() for chunk in split_chunks(e, x, chunk_size=3, seed=0)[0])
    assert not torch.equal(first, second)
    torch.manual_seed(123)
    chunks = split_chunks(e, torch.cat([x, x]), chunk_size=3, seed=0)[0]
    torch.testing.assert_close(chunks[1].embed(), second, rtol=0, atol=0)
    for other in (split_chunks(e, x, chunk_size=3, seed=1)[0], split_chunks(e, x, chunk_size=3, seed=0, place=1)[0]):
        assert not torch.equal(other[0].embed(), first)


def test_checkpointing_inside_an_encoder():
    class Checkpointed(Net):
        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(super().forward, x, use_reentrant=False)

    torch.manual_seed(0)
    encoders = [encoder(name, Checkpointed().double()) for name in ("video", "text")]
    inputs = [torch.randn(7, 7, dtype=torch.float64) for _ in encoders]
    assert_exact(encoders, inputs, chunk_size=3, seed=0, retain=1)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("retain", [0, 2, 99])
def test_batch_norm_takes_each_chunk_in_once(momentum, retain):
    def fresh():
        return pair(middle=nn.BatchNorm1d(6, momentum=momentum))

    encoders, inputs = fresh()
    encoders[1] = encoder("text", Net().double())
    bare, _ = fresh()
    bare[1] = encoders[1]
    cached_step(encoders, inputs, loss_fn=Loss(), chunk_size=4, seed=0, retain=retain)
    plain_step(bare, inputs, loss_fn=Loss(), chunk_size=4, seed=0)
    for name, buffer in bare[0].module.named_buffers():
        torch.testing.assert_close(encoders[0].module.get_buffer(name), buffer, rtol=0, atol=0)
    for name, parameter in bare[0].module.named_parameters():
        torch.testing.assert_close(encoders[0].module.get_parameter(name).grad, parameter.grad)
    assert encoders[0].module.middle.track_running_stats


def test_frozen_batch_norm_keeps_its_statistics():
    encoders, inputs = pair(middle=nn.BatchNorm1d(6))
    for e in encoders:
        e.module.middle.eval()
    before = encoders[0].module.middle.running_mean.clone()
    assert_exact(encoders, inputs, chunk_size=4, seed=0)
    torch.testing.assert_close(encoders[0].module.middle.running_mean, before, rtol=0, atol=0)


class Counts(nn.Module):
    """A state that every forward pass changes and the next one reads."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls.clone()


def test_a_state_that_would_change_twice_is_refused():
    encoders, inputs = pair(middle=Counts())
    with pytest.raises(ModelError, match=r"writes to its buffer 'middle\.calls'"):
        cached_step(encoders, inputs, loss_fn=Loss(), chunk_size=4, seed=0)
    encoders, inputs = pair(middle=Counts())
    cached_step(encoders, inputs, loss_fn=Loss(), chunk_size=4, seed=0, retain=99)


@pytest.mark.parametrize("outer", [False, True])
def test_bfloat16_autocast(outer):
    torch.manual_seed(0)
    encoders = [encoder(name, Net()) for name in ("video", "text")]
    inputs = [torch.randn(10, 7) for _ in encoders]
    # A step inside somebody's own autocast: its cache of cast weights must not cut the graphs of the second pass.
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=outer):
        found = assert_exact(
            encoders, inputs, loss=Loss(torch.float32), tolerance=1e-6, chunk_size=3, seed=0, autocast=torch.bfloat16
        )
    exact = gradients(plain_step, encoders, inputs, Loss(torch.float32), chunk_size=3, seed=0)
    difference = (found["video.first.weight"] - exact["video.first.weight"]).norm() / exact["video.first.weight"].norm()
    assert 1e-4 < difference < 0.1, "autocast was not in force"


@pytest.mark.parametrize("retain", [0, 2])
def test_float16_with_a_scaler(retain):
    torch.manual_seed(0)
    encoders = [encoder(name, Net()) for name in ("video", "text")]
    inputs = [torch.randn(10, 7) for _ in encoders]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    options = {"chunk_size": 3, "seed": 0, "autocast": torch.float16, "scaler": scaler}
    found = assert_exact(encoders, inputs, loss=Loss(torch.float32), tolerance=1e-6, retain=retain, **options)
    exact = gradients(plain_step, encoders, inputs, Loss(torch.float32), chunk_size=3, seed=0)
    for name, true in exact.items():
        scale = 1 if name == "loss" else 2.0**10
        assert (found[name] - scale * true).norm() < 0.02 * scale * true.norm(), name


def test_no_sync_covers_all_but_the_last_chunk_which_is_encoded_last():
    encoders, inputs = pair()
    log: list[str] = []

    @contextmanager
    def no_sync():
        log.append("(")
        yield
        log.append(")")

    def telling(e: Encoder) -> Encoder:
        def encode(x: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                log.append(f"{e.name[0]}{len(x)}")
            return e.module(x)

        return Encoder(e.name, e.module, encode)

    told = [telling(e) for e in encoders]
    found = gradients(cached_step, told, inputs, Loss(), chunk_size=4, seed=0, retain=99, no_sync=no_sync)
    assert "".join(log) == "(v4v2)(t4t2)()()v4t4"
    plain = gradients(plain_step, encoders, inputs, Loss(), chunk_size=4, seed=0)
    for name, true in plain.items():
        torch.testing.assert_close(found[name], true)


@pytest.fixture
def one_process_group(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("retain", [0, 1, 99])
def test_distributed_data_parallel_reduces_each_encoder_once_and_whole(one_process_group, retain):
    encoders, inputs = pair()
    plain = gradients(plain_step, encoders, inputs, Loss(), chunk_size=4, seed=0)
    reduced: dict[str, list[float]] = {"video": [], "text": []}
    wrapped = []
    for e in encoders:
        e.module.zero_grad()
        ddp = nn.parallel.DistributedDataParallel(e.module)

        def reduce(name, bucket):
            reduced[name].append(float(bucket.buffer().norm()))
            future = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        ddp.register_comm_hook(e.name, reduce)
        wrapped.append(Encoder(e.name, ddp, ddp))

    @contextmanager
    def no_sync():
        with wrapped[0].module.no_sync(), wrapped[1].module.no_sync():
            yield

    cached_step(wrapped, inputs, loss_fn=Loss(), chunk_size=4, seed=0, retain=retain, no_sync=no_sync)
    for e in encoders:
        whole = torch.cat([plain[f"{e.name}.{n}"].flatten() for n, _ in e.module.named_parameters()]).norm()
        assert reduced[e.name] == pytest.approx([float(whole)])


def test_verify_accepts_the_exact_and_leaves_no_trace():
    encoders, inputs = pair(middle=nn.BatchNorm1d(6))
    loss = Loss()
    cached_step(encoders, inputs, loss_fn=loss, chunk_size=4, seed=0)
    parameters = [p for e in encoders for p in e.module.parameters()] + [loss.log_scale]
    tensors = parameters + [p.grad for p in parameters] + [b for e in encoders for b in e.module.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    check = verify_gradient(
        encoders, inputs, loss_fn=loss, loss_parameters={"log_scale": loss.log_scale}, chunk_size=4, seed=0, retain=1
    )
    assert check.differences.keys() == {"video", "text", "log_scale"}
    assert all(seen <= 1e-12 for seen in check.differences.values())
    assert set(check.bounds.values()) == {1e-12}
    after = parameters + [p.grad for p in parameters] + [b for e in encoders for b in e.module.buffers()]
    for was, now in zip(before, after, strict=True):
        torch.testing.assert_close(now, was, rtol=0, atol=0)
    assert all(e.module.middle.training for e in encoders)


class Unsteady(nn.Module):
    """Noise in training that torch's seed does not govern."""

    def forward(self, x: Tensor) -> Tensor:
        return x * random.uniform(0.9, 1.1) if self.training else x


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_verify_refuses_what_is_not_exact(dtype):
    autocast = torch.bfloat16 if dtype == torch.bfloat16 else None
    kind = torch.float32 if autocast else dtype
    torch.manual_seed(0)
    encoders = [encoder("video", Net(middle=Unsteady()).to(kind)), encoder("text", Net().to(kind))]
    loss = Loss(kind)
    inputs = [torch.randn(10, 7, dtype=kind) for _ in encoders]
    options = {"loss_fn": loss, "loss_parameters": {"log_scale": loss.log_scale}, "chunk_size": 4, "seed": 0}
    with pytest.raises(TrainingError, match="differs from plain autograd's: video by"):
        verify_gradient(encoders, inputs, autocast=autocast, **options)
    encoders[0] = encoder("video", Net().to(kind))
    assert not verify_gradient(encoders, inputs, autocast=autocast, **options).past


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("retain", [0, 1, 99])
@pytest.mark.parametrize(
    ("precision", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 1e-6), (torch.float16, 1e-6)]
)
def test_on_cuda(precision, tolerance, retain):
    """Dropout is drawn on the GPU there; one tower's inputs lie on the CPU, as sentences do."""
    kind = torch.float64 if precision == torch.float64 else torch.float32
    torch.manual_seed(0)
    net, words = Net(dropout=0.5).to("cuda", kind), Net(dropout=0.5).to("cuda", kind)
    encoders = [encoder("video", net), Encoder("text", words, lambda x: words(x.cuda()))]
    inputs = [torch.randn(10, 7, dtype=kind, device="cuda"), torch.randn(10, 7, dtype=kind)]
    loss = Loss(kind)
    loss.log_scale = nn.Parameter(loss.log_scale.detach().cuda())
    options = {"chunk_size": 3, "seed": 0, "autocast": None if kind == precision else precision}
    if precision == torch.float16:
        # At the default of 65,536 the gradient of so steep a loss overflows, and a trainer would skip the step.
        options["scaler"] = torch.amp.GradScaler("cuda", init_scale=16.0)
    state = torch.cuda.get_rng_state()
    found = assert_exact(encoders, inputs, loss=loss, tolerance=tolerance, retain=retain, **options)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    net.eval()
    still = gradients(cached_step, encoders, inputs, loss, **options)
    assert not torch.allclose(found["video.last.weight"], still["video.last.weight"]), "dropout was not in force"


def test_a_device_with_a_generator_of_its_own_replays_its_numbers_too(monkeypatch):
    """As MPS has; here a generator stands for it."""
    own = torch.Generator().manual_seed(3)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "_get_default_mps_generator", lambda: own)
    encoders, inputs = pair()
    net = encoders[0].module

    def encode(x: Tensor) -> Tensor:
        return net(x * (torch.rand(x.shape, generator=own, dtype=x.dtype) > 0.3))

    encoders[0] = Encoder("video", net, encode)
    state = own.get_state()
    assert_exact(encoders, inputs, chunk_size=3, seed=0, retain=1)
    assert torch.equal(own.get_state(), state)


def test_seeded_is_undone_after_an_error():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with pytest.raises(ValueError, match="invalid literal"), seeded(5):
        int(f"not a number {torch.rand(2)}")
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
