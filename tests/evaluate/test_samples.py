import shutil
from dataclasses import replace

import pytest

from clipact.data.fingerprint import file_digest
from clipact.data.protocol import ProtocolPart, load_protocol, protocol_names
from clipact.errors import DataError, ManifestError, UsageError
from clipact.evaluate import manifest_protocol, read_samples
from clipact.evaluate.encoded_samples import zero_shot_by_name
from clipact.evaluate.samples import files_digest


@pytest.fixture
def protocol(tree):
    protocol = manifest_protocol(tree / "table.csv")
    names = [f"videos/{number:02}.mp4" for number in range(14)]
    digests = {name: file_digest(tree / name) for name in names}
    part = replace(protocol.data.parts[0], sha256=file_digest(tree / "table.csv"), count=14)
    whole = files_digest(names, digests)
    return replace(protocol, data=replace(protocol.data, parts=(part,), count=14, files_sha256=whole, group="person"))


def test_the_right_data_are_taken(protocol, tree):
    samples = read_samples(protocol, tree)
    assert len(samples) == 14
    assert samples.partial_why == ()
    assert samples.items[3].group == "p1"
    assert samples.labels.labels == ("bending", "jumping", "waving")


@pytest.mark.parametrize("wrong", ["list hash", "part count", "count", "file", "missing"])
def test_other_data_are_refused_or_marked(protocol, tree, tmp_path, wrong):
    shutil.copytree(tree, tmp_path / "data")
    part = protocol.data.parts[0]
    if wrong == "list hash":
        protocol = replace(protocol, data=replace(protocol.data, parts=(replace(part, sha256="0" * 64),)))
    elif wrong == "part count":
        protocol = replace(protocol, data=replace(protocol.data, parts=(replace(part, count=15),)))
    elif wrong == "count":
        protocol = replace(protocol, data=replace(protocol.data, count=13))
    elif wrong == "file":
        (tmp_path / "data/videos/03.mp4").write_bytes(b"another film")
    else:
        (tmp_path / "data/videos/03.mp4").unlink()
    with pytest.raises(DataError, match="--allow-mismatch"):
        read_samples(protocol, tmp_path / "data")
    assert len(read_samples(protocol, tmp_path / "data", allow_mismatch=True).partial_why) == 1


def test_what_stands_in_several_parts_is_one_sample(protocol, tree, tmp_path):
    lines = (tree / "table.csv").read_text().splitlines()
    parts = []
    for name, rows in (("first", [1, 2, 3]), ("second", [3, 4])):
        (tmp_path / f"{name}.csv").write_text("\n".join([lines[0], *(lines[i] for i in rows)]) + "\n")
        parts.append(ProtocolPart(name=name, list=f"{name}.csv"))
    data = replace(protocol.data, parts=tuple(parts), count=4, files_sha256="")
    samples = read_samples(replace(protocol, data=data, folder=tmp_path), tree)
    assert [item.name for item in samples.items] == [f"videos/0{i}.mp4" for i in range(4)]
    assert {name: rows.tolist() for name, rows in samples.parts.items()} == {"first": [0, 1, 2], "second": [2, 3]}


def test_a_label_that_is_not_the_cards_is_refused(protocol, tree):
    words = replace(protocol.words, names=("waving", "jumping"))
    with pytest.raises(ManifestError, match="'bending' is none of protocol table's"):
        read_samples(replace(protocol, words=words), tree)


def test_a_data_folder_that_is_not_there_is_said(protocol, tmp_path):
    with pytest.raises(UsageError, match="is not there"):
        read_samples(protocol, tmp_path / "no")


@pytest.mark.parametrize(
    ("trained_on", "answer"),
    [
        (("flickr8k train",), False),
        (("Flickr-8k",), False),
        (("UCF 101",), False),
        (("kinetics400",), True),
        ((), None),
        (("",), True),
    ],
)
def test_a_model_that_learnt_from_the_set_is_not_zero_shot_on_it(trained_on, answer):
    said, why = zero_shot_by_name(trained_on, {"set": "flickr8k", "aliases": ["ucf101"]})
    assert said is answer
    assert bool(why) is (answer is not True)


@pytest.mark.parametrize("name", protocol_names())
def test_a_model_that_learnt_from_a_cards_set_or_one_that_holds_it_is_not_zero_shot(name):
    data = load_protocol(name).data
    said = {"set": data.set, "aliases": data.aliases}
    holders = {"flickr8k": ["Flickr30k train"]}.get(name, [])
    for learnt in (data.set, f"{data.set} train", data.set.replace("_", "-").upper(), *holders):
        assert zero_shot_by_name(("kinetics400", learnt), said) == (False, f"trained on {learnt}")
    assert zero_shot_by_name(("kinetics400",), said) == (True, "")


def test_a_table_of_ones_own_is_of_no_named_set(tree):
    said, why = zero_shot_by_name(
        ("flickr8k train",), dict(read_samples(manifest_protocol(tree / "table.csv"), tree).data)
    )
    assert said is None
    assert "flickr8k train" in why
    assert "no protocol says" in why


def test_a_table_may_lie_elsewhere_than_its_files(tree, tmp_path):
    shutil.copy(tree / "table.csv", tmp_path / "mine.csv")
    here, there = (
        read_samples(manifest_protocol(tmp_path / "mine.csv"), tree),
        read_samples(manifest_protocol(tree / "table.csv"), tree),
    )
    assert here.items == there.items


def test_parts_of_a_file_are_one_group_named_alike_wherever_the_data_lie(tree, tmp_path):
    rows = [f"videos/00.mp4,waving,{start},{start + 1}" for start in range(2)] + ["videos/01.mp4,jumping,0,1"]
    (tmp_path / "parts.csv").write_text("\n".join(["path,label,start_seconds,end_seconds", *rows]) + "\n")
    samples = read_samples(manifest_protocol(tmp_path / "parts.csv"), tree)
    assert samples.groups == ("videos/00.mp4", "videos/00.mp4", "videos/01.mp4")
