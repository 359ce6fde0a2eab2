import pytest
import torch

from clipact.errors import ConfigError
from clipact.losses import distillation_loss
from clipact.models.checkpoint import load_checkpoint, read_config
from clipact.models.save_checkpoint import save_model
from tests.train.small_run import small_recipe, small_run


def test_distilling_is_the_cross_entropy_to_the_teachers_softmax():
    generator = torch.Generator().manual_seed(0)
    clips, texts = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator).requires_grad_()
    targets = torch.randn(2, 5, 5, dtype=torch.float64, generator=generator).softmax(2)
    expected = 0.0
    for i in range(5):
        for one, others, target in ((clips, texts, targets[0]), (texts, clips, targets[1])):
            logits = torch.stack([7.0 * (one[i] * other).sum() for other in others])
            expected = expected - (target[i] * (logits - logits.exp().sum().log())).sum() / 10
    loss = distillation_loss(clips, texts, scale=torch.tensor(7.0), targets=(targets[0], targets[1]))
    torch.testing.assert_close(loss, expected)


def test_a_pupil_that_is_its_own_teacher_has_nothing_to_learn():
    clips, texts = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    logits = (3.0 * clips @ texts.T).detach()
    loss = distillation_loss(clips, texts, scale=torch.tensor(3.0), targets=(logits.softmax(1), logits.T.softmax(1)))
    for gradient in torch.autograd.grad(loss, (clips, texts)):
        assert gradient.abs().max() < 1e-6


def test_teachers_answer_as_their_mean(small, drawn, tmp_path):
    other = load_checkpoint(small)
    with torch.no_grad():
        other.log_scale.add_(0.5)
        other.text.head.project.weight.mul_(-1)
    folder = save_model(other, tmp_path / "other", name="other", trained_on=("elsewhere",))
    recipe = small_recipe(small, distillation={"teachers": [str(small), str(folder)]}, data={"augment": None})
    run = small_run(recipe, drawn, tmp_path / "store")
    (batch,) = run.encoded_batches(0).batches(0, 1, batch=5)
    run.teachers.encode(0, 1, batch=5)
    by_clip, by_text = run.teachers.targets(batch)
    expected = []
    for encoder in (load_checkpoint(small), other):
        encoded = run._encoded_batches_of(encoder.eval(), run.examples, cached_sides=(), unaugmented=True)
        clips = dict(zip(*encoded.embed_clips(), strict=True))
        rows = torch.stack([clips[visual_id] for visual_id in batch.visual_ids.tolist()])
        expected.append(encoder.scale * rows @ encoder.encode_text(batch.sentences).T)
    torch.testing.assert_close(by_clip, sum(some.softmax(1) for some in expected) / 2)
    torch.testing.assert_close(by_text, sum(some.T.softmax(1) for some in expected) / 2)


def test_a_run_learns_from_its_teachers_and_has_seen_what_they_saw(small, drawn, tmp_path):
    teacher = save_model(load_checkpoint(small), tmp_path / "teacher", name="teacher", trained_on=("elsewhere",))
    losses = {}
    for share in (0.5, 1.0):
        recipe = small_recipe(small, distillation={"teachers": [str(teacher)], "weight": share}, train={"steps": 2})
        out = tmp_path / f"out {share}"
        losses[share] = [report.loss for report in small_run(recipe, drawn, tmp_path / "store").train(out)]
        assert read_config(out / "last").trained_on == ("elsewhere", "drawn")
    plain = [
        report.loss
        for report in small_run(small_recipe(small, train={"steps": 2}), drawn, tmp_path / "store").train(
            tmp_path / "out"
        )
    ]
    assert losses[0.5][0] == pytest.approx((plain[0] + losses[1.0][0]) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"distillation": {"teachers": ["mini"], "weight": 0.0}}, "weight is 0"),
        ({"distillation": {"teachers": ["mini"]}, "train": {"batch": 8000}}, "loss_tile 4,096"),
        ({"distillation": {"teachers": ["mini"]}, "train": {"loss": "cross_entropy"}}, "cross_entropy"),
    ],
)
def test_what_teachers_cannot_do_is_said(small, tables, said):
    with pytest.raises(ConfigError, match=said):
        small_recipe(small, **tables)
