import hashlib
import re

import pytest

from clipact.clip_spec import ClipSpec
from clipact.data.fingerprint import file_digest
from clipact.data.manifest import read_manifest
from clipact.data.protocol import Views, load_protocol, protocol_names
from clipact.errors import ConfigError, UsageError
from clipact.prompts import LabelSet, PromptSet

PUBLISHED = {"ucf101": [3783, 3734, 3696], "hmdb51": [1530, 1530, 1530]}
GOOD = """
name = "mine"
title = "My own"
metric = "top_1"
source = "me"
[data]
set = "mine"
[[data.parts]]
manifest = "m.csv"
"""


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_is_whole_and_its_lists_are_what_it_says(name):
    protocol = load_protocol(name)
    assert protocol.name == name
    assert PromptSet.load(protocol.words.templates).templates
    labels = LabelSet.load(protocol.words.set).labels if protocol.words.set else protocol.words.names
    for part in protocol.data.parts:
        assert len(part.sha256) == 64
        if part.list:
            assert file_digest(protocol.folder / part.list) == part.sha256
            samples = read_manifest(protocol.folder / part.list).of_split(protocol.data.split)
            assert len(samples) == part.count
            there = {label for sample in samples for label in (sample.label, *sample.extra_labels)}
            assert not labels or there == set(labels) or (name == "gmdcsa24" and there < set(labels))
            assert all(re.search(protocol.data.group_pattern, sample.path) for sample in samples)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_splits_have_their_published_sizes(name):
    protocol = load_protocol(name)
    assert [part.count for part in protocol.data.parts] == PUBLISHED[name]
    paths = {s.path for part in protocol.data.parts for s in read_manifest(protocol.folder / part.list).samples}
    assert len(paths) == protocol.data.count


def test_a_files_own_name_says_its_label():
    """UCF101's and HMDB51's archives name the action in each file; a table of numbers can be, and is, mistaken."""
    for name, written in (("ucf101", r"/v_{}_g"), ("hmdb51", r"_{}_[a-z]_[cn]m_np")):
        protocol = load_protocol(name)
        for sample in (s for part in protocol.data.parts for s in read_manifest(protocol.folder / part.list).samples):
            assert sample.path.split("/")[0] == sample.label
            assert re.search(written.format(sample.label), sample.path, re.IGNORECASE), sample.path


def test_clips_of_one_film_share_a_group_whatever_is_done_in_them():
    protocol = load_protocol("hmdb51")
    paths = {s.path for part in protocol.data.parts for s in read_manifest(protocol.folder / part.list).samples}
    found = {path: re.search(protocol.data.group_pattern, path)["group"] for path in paths}
    matrix = [path for path, group in found.items() if group == "The_Matrix"]
    assert len(matrix) == 41
    assert len({path.split("/")[0] for path in matrix}) > 3
    assert len(set(found.values())) == 1035


def test_every_part_of_sports22_has_every_label_and_what_is_reported_never_moves():
    path = load_protocol("sports22").folder / "lists/sports22.csv"
    train, dev, test = (read_manifest(path).of_split(split) for split in ("train", "dev", "test"))
    assert len(train) == 1914
    assert (len(dev), len(test)) == (load_protocol("sports22-dev").data.count, load_protocol("sports22").data.count)
    assert all(len({sample.label for sample in part}) == 22 for part in (train, dev, test))
    names = "\n".join(sample.path for sample in test)
    assert hashlib.sha256(names.encode()).hexdigest().startswith("338cff87467bd002")


def test_views_overrule_the_models_own_way():
    spec = ClipSpec(frames=16, resize="squash", sampling="uniform")
    assert Views().apply(spec) == spec
    changed = Views(frames=4, sampling="strided", stride=2).apply(spec)
    assert (changed.frames, changed.sampling, changed.stride, changed.resize) == (4, "strided", 2, "squash")


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ('metric = "top_1"', 'metric = "top1"', "did you mean 'top_1'"),
        ('set = "mine"', 'set = "mine"\ngrop = "person"', "did you mean 'group'"),
        ('manifest = "m.csv"', 'manifest = "m.csv"\nlist = "l.csv"', "takes one of"),
        ('manifest = "m.csv"', 'manifest = "m.csv"\n[[data.parts]]\nmanifest = "n.csv"', "a name for each"),
        ('set = "mine"', 'set = "mine"\ngroup_pattern = "g"', "round brackets"),
        ('set = "mine"', 'set = "mine"\ngroup_pattern = "(g"', "group_pattern"),
        ('metric = "top_1"', 'metric = "retrieval"\nwords.templates = "single"', "captions are sentences already"),
        ('metric = "top_1"', 'metric = "retrieval"\nviews.averaging = "logits"', "no views.averaging"),
    ],
)
def test_a_wrong_protocol_names_what_is_wrong(tmp_path, was, becomes, says):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert load_protocol(path).data.parts[0].manifest == "m.csv"
    path.write_text(GOOD.replace(was, becomes))
    with pytest.raises(ConfigError, match=says):
        load_protocol(path)


def test_a_protocol_that_is_not_there_names_those_that_are():
    with pytest.raises(UsageError, match="did you mean 'weizmann'"):
        load_protocol("weizman")
