import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clipact.clip_spec import ClipSpec
from clipact.data.sources import SourceConfig, read_sources
from clipact.errors import ConfigError, DataError, LabelError
from clipact.prompts import PromptSet, phrase
from clipact.train.loader import ClipTextDataset, Loader, SamplePosition, UnreadableFile
from clipact.video.augment import Augment
from clipact.video.load import load_clip
from tests.data.drawing import write_manifest

# More workers than cores is what some of these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

SPEC = ClipSpec(size=(16, 16))
AUGMENT = Augment(brightness=0.3)
PICTURES = SourceConfig(manifest=Path("pictures.csv"))
CLIPS = SourceConfig(manifest=Path("clips.csv"), frames=4, clips=2)


def _samples(folder, *sources, augment=AUGMENT):
    return ClipTextDataset(read_sources(sources, folder), SPEC, seed=0, augment=augment)


def _same(one, other):
    assert (one.sentences, one.repeats) == (other.sentences, other.repeats)
    for name in ("visual_ids", "text_ids", "label_ids"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert [v.shape for v in one.visual] == [v.shape for v in other.visual]
    assert all(torch.equal(a, b) for a, b in zip(one.visual, other.visual, strict=True))


def test_any_number_of_workers_gives_the_same_batches(drawn):
    def batches(workers):
        samples = _samples(drawn, PICTURES, replace(CLIPS, sentences=3))
        loader = Loader(samples, batch=7, chunk=8, workers=workers)
        return list(loader.batches(0, 5))

    alone = batches(0)
    assert {tuple(v.shape[1:]) for b in alone for v in b.visual} == {(1, 16, 16, 3), (4, 16, 16, 3)}
    for workers in (1, 3):
        for one, other in zip(alone, batches(workers), strict=True):
            _same(one, other)


def test_a_run_can_begin_at_any_step(drawn):
    loader = Loader(_samples(drawn, PICTURES, CLIPS), batch=7, chunk=8)
    for one, other in zip(list(loader.batches(0, 5))[3:], loader.batches(3, 5), strict=True):
        _same(one, other)


def test_reading_data_leaves_torchs_random_numbers_alone(drawn):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(Loader(_samples(drawn, PICTURES), batch=7, chunk=8).batches(0, 2))
    assert torch.equal(torch.rand(3), expected)


def test_a_batch_may_be_larger_than_the_data(drawn):
    (batch,) = Loader(_samples(drawn, PICTURES), batch=25, chunk=4).batches(0, 1)
    assert len(batch) == 25
    assert len(batch.visual_ids.unique()) == 10
    assert [len(v) for v in batch.visual] == [4, 4, 4, 4, 4, 4, 1]


def test_one_pass_has_every_entry_once_in_order(drawn):
    samples = _samples(drawn, PICTURES)
    batches = list(Loader(samples, batch=4, chunk=2, shuffled=False).one_epoch())
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert torch.cat([batch.visual_ids for batch in batches]).tolist() == [e.visual_id for e in samples.examples]


def test_every_clip_of_a_file_goes_with_its_sentence(drawn):
    (batch,) = Loader(_samples(drawn, CLIPS), batch=3, chunk=100, shuffled=False).batches(0, 1)
    assert [tuple(v.shape) for v in batch.visual] == [(6, 4, 16, 16, 3)]
    assert torch.equal(batch.visual_ids[0::2], batch.visual_ids[1::2])
    assert batch.sentences[0::2] == batch.sentences[1::2]
    assert torch.equal(batch.text_ids[0::2], batch.text_ids[1::2])
    assert len(set(batch.visual_ids.tolist())) == 3
    waving, bending, again = batch.label_ids[0::2].tolist()
    assert waving == again != bending
    known = {t.fill(phrase(label)) for t in PromptSet.load("action").templates for label in ("waving", "bending")}
    assert set(batch.sentences) <= known


def test_labels_are_written_as_the_prompts_say(tmp_path):
    (tmp_path / "t.csv").write_text("path,label,split\na.mp4,UseLaptop,train\nb.mp4,drink,train\n")

    def sentences(wording):
        (tmp_path / "p.toml").write_text(f'name = "p"\ntemplates = ["so {{}}", "{{}}"]\n{wording}')
        source = SourceConfig(manifest=Path("t.csv"), prompts=str(tmp_path / "p.toml"))
        return [example.sentences for example in read_sources([source], tmp_path)]

    assert sentences("") == [("so using laptop", "using laptop"), ("so drinking", "drinking")]
    assert sentences('[wording]\nnames = "verbatim"\n') == [("so UseLaptop", "UseLaptop"), ("so drink", "drink")]
    with pytest.raises(ConfigError, match="have weights, and training draws each as often"):
        sentences('weights = [1, 2]\n[wording]\nover_templates = "weighted"\n')
    with pytest.raises(LabelError, match="add the phrase to words"):
        sentences('[wording]\nwords = ["synonyms"]\n')


def test_sentences_are_those_of_their_files_and_share_an_id_when_they_are_the_same(drawn):
    samples = _samples(drawn, PICTURES)
    (batch,) = Loader(samples, batch=40, chunk=100).batches(0, 1)
    of_file = {example.visual_id: example.sentences for example in samples.examples}
    rows = list(zip(batch.sentences, batch.visual_ids.tolist(), strict=True))
    assert all(sentence in of_file[visual_id] for sentence, visual_id in rows)
    assert len(set(rows)) < len(rows), "some pairs come twice, so ids can be compared"
    ids = dict(zip(batch.sentences, batch.text_ids.tolist(), strict=True))
    assert [ids[sentence] for sentence in batch.sentences] == batch.text_ids.tolist()
    assert len(set(ids.values())) == len(ids)
    assert torch.equal(batch.label_ids, batch.text_ids), "without labels the label agrees only where the text does"


def test_captions_are_drawn_anew_each_epoch_or_all_taken(drawn):
    samples = _samples(drawn, PICTURES)
    said = [samples[SamplePosition(epoch, 0)].texts for epoch in range(12)]
    assert all(len(one) == 1 for one in said)
    assert len(set(said)) == 2
    assert samples[SamplePosition(3, 0)].texts == said[3]
    every = read_sources([SourceConfig(manifest=Path("pictures.csv"), captions="all")], drawn)
    assert len(every) == 20
    assert all(len(example.sentences) == 1 for example in every)
    assert len({example.visual_id for example in every}) == 10


def test_of_every_clip_of_a_file_several_sentences_are_said_each_of_which_is_a_row(drawn):
    once, thrice = (
        next(Loader(_samples(drawn, source), batch=3, chunk=4, shuffled=False).batches(2, 3))
        for source in (CLIPS, replace(CLIPS, sentences=3))
    )
    assert (len(once), once.repeats) == (6, (1,) * 6)
    assert (len(thrice), thrice.repeats) == (18, (3,) * 6)
    assert all(torch.equal(a, b) for a, b in zip(once.visual, thrice.visual, strict=True)), "each clip is there once"
    for name in ("sentences", "visual_ids", "text_ids", "label_ids"):
        assert list(getattr(thrice, name)[::3]) == list(getattr(once, name)), "others come beside the one of before"
    for i in range(0, 18, 6):
        assert thrice.sentences[i : i + 3] == thrice.sentences[i + 3 : i + 6]
        assert len(set(thrice.sentences[i : i + 3])) == 3
        for ids in (thrice.visual_ids, thrice.label_ids):
            assert len(ids[i : i + 6].unique()) == 1
    ids = dict(zip(thrice.sentences, thrice.text_ids.tolist(), strict=True))
    assert [ids[sentence] for sentence in thrice.sentences] == thrice.text_ids.tolist()


def test_of_a_file_no_more_sentences_are_said_than_it_has_and_others_each_epoch(drawn):
    samples = _samples(drawn, replace(PICTURES, sentences=9))
    assert {sentence for sentence, _ in samples[SamplePosition(0, 0)].texts} == set(samples.examples[0].sentences)
    assert len(samples[SamplePosition(0, 0)].texts) == 2
    samples = _samples(drawn, replace(CLIPS, sentences=2))
    said = [frozenset(sentence for sentence, _ in samples[SamplePosition(epoch, 0)].texts) for epoch in range(40)]
    assert frozenset.union(*said) == set(samples.examples[0].sentences)


@pytest.fixture
def damaged(drawn, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(drawn, folder)
    (folder / "pictures/3.png").write_bytes(b"no picture")
    os.unlink(folder / "pictures/5.png")
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_files_are_left_out_counted_and_named(damaged, drawn, workers):
    loader = Loader(_samples(damaged, PICTURES), batch=10, chunk=4, workers=workers, max_unreadable=2)
    (batch,) = loader.batches(0, 1)
    assert sorted(Path(path).name for path in loader.unreadable_files) == ["3.png", "5.png"]
    assert "no such file" in loader.unreadable_files[str(damaged / "pictures/5.png")]
    whole = next(Loader(_samples(drawn, PICTURES), batch=10, chunk=4).batches(0, 1))
    assert len(batch) == 8
    assert set(batch.text_ids.tolist()) < set(whole.text_ids.tolist()), "nothing stands in for what is broken"
    list(loader.batches(1, 4))
    assert len(loader.unreadable_files) == 2, "a file that fails again counts once"


def test_too_many_broken_files_end_the_run_by_name(damaged):
    with pytest.raises(
        DataError, match=r"2 files could not be read, more than max_unreadable = 1; .*5\.png: no such file"
    ):
        list(Loader(_samples(damaged, PICTURES), batch=10, chunk=4, max_unreadable=1).batches(0, 1))
    shutil.rmtree(damaged / "pictures")
    with pytest.raises(DataError, match="not one of the 4 files of a batch"):
        list(Loader(_samples(damaged, PICTURES), batch=4, chunk=4, max_unreadable=99).batches(0, 1))


class _Dying(ClipTextDataset):
    def __getitem__(self, place):
        os._exit(3)


@pytest.mark.slow
def test_a_worker_that_dies_is_said_not_waited_for(drawn):
    loader = Loader(_Dying(read_sources([PICTURES], drawn), SPEC, seed=0), batch=4, chunk=4, workers=1)
    with pytest.raises(DataError, match="fewer workers"):
        list(loader.batches(0, 1))


def test_a_broken_sample_is_an_answer_not_an_exception(damaged):
    example = _samples(damaged, PICTURES)[SamplePosition(0, 5)]
    assert isinstance(example, UnreadableFile)
    assert Path(example.path).name == "5.png"


def test_pixels_are_those_of_the_file(drawn):
    example = _samples(drawn, PICTURES, augment=None)[SamplePosition(0, 7)]
    assert example.clips.shape == (1, 1, 16, 16, 3)
    assert np.abs(example.clips.astype(int) - 140).max() <= 2


def test_augmented_frames_are_drawn_anew_each_epoch_and_the_same_each_time(drawn):
    samples, plain = _samples(drawn, CLIPS), _samples(drawn, CLIPS, augment=None)
    first, again, later = (samples[SamplePosition(epoch, 0)].clips for epoch in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)
    assert np.array_equal(plain[SamplePosition(0, 0)].clips, plain[SamplePosition(1, 0)].clips)


def test_parts_of_a_file_are_decoded_from_there_and_are_no_positives_of_each_other(drawn, tmp_path):
    parts = [
        {"path": "clips/0.mp4", "label": "waving", "start_seconds": a, "end_seconds": b}
        for a, b in ((0, 0.5), (0.6, 1.1))
    ]
    write_manifest(tmp_path / "parts.csv", *parts)
    source = SourceConfig(manifest=tmp_path / "parts.csv", root=drawn, frames=2)
    samples = _samples(drawn, source, augment=None)
    shown = [samples[SamplePosition(0, i)].clips[0] for i in range(2)]
    for example, seen in zip(samples.examples, shown, strict=True):
        times = {"start_seconds": example.start_seconds, "end_seconds": example.end_seconds}
        assert np.array_equal(seen, load_clip(example.path, spec=replace(SPEC, frames=2), **times).frames)
    assert not np.array_equal(*shown)
    assert samples.examples[0].visual_id != samples.examples[1].visual_id


def test_impossible_sources_are_refused():
    with pytest.raises(ConfigError, match="frames is 0"):
        SourceConfig(manifest=Path("m.csv"), frames=0)
    with pytest.raises(ConfigError, match="sentences is 0; it is at least 1"):
        SourceConfig(manifest=Path("m.csv"), sentences=0)
    with pytest.raises(ConfigError, match="sentences is 2 beside captions = 'all'"):
        SourceConfig(manifest=Path("m.csv"), captions="all", sentences=2)


def test_several_sentences_are_not_asked_for_where_there_is_one(drawn):
    source = replace(CLIPS, sentences=2, prompts="bare")
    with pytest.raises(ConfigError, match=r"sentences is 2, but no sample of .*clips\.csv has more than one"):
        read_sources([source], drawn)


@pytest.mark.slow
def test_a_process_ends_though_its_workers_are_still_there(drawn):
    """They ignore terminations, and multiprocessing waits at exit for what it has terminated."""
    script = f"""
import builtins
from pathlib import Path
from clipact.clip_spec import ClipSpec
from clipact.train.loader import ClipTextDataset, Loader
from clipact.data.sources import SourceConfig, read_sources

if __name__ == "__main__":
    examples = read_sources([SourceConfig(manifest=Path("pictures.csv"))], Path({str(drawn)!r}))
    samples = ClipTextDataset(examples, ClipSpec(size=(16, 16)), seed=0)
    builtins.kept = Loader(samples, batch=2, chunk=4, workers=2).batches(0, 99)  # outlives the module
    print(len(next(builtins.kept)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
