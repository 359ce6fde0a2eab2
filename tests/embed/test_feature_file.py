"""Files of embeddings: what is written is read back bit for bit, by us and by the programs that people have."""

import dataclasses
import hashlib
import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipact.clip_spec import ClipSpec
from clipact.embed import feature_writer
from clipact.embed.feature_file import FeatureFile
from clipact.embed.feature_row import FeatureMetadata, FeatureRow
from clipact.embed.feature_writer import ROWS_A_GROUP, FeatureWriter
from clipact.errors import FeatureFileError, MissingLibraryError

METADATA = FeatureMetadata(
    model="mini", model_hash="ab" * 32, dim=6, clip=ClipSpec(frames=4), clips=2, decoders="pyav 16, pillow 11"
)
PER_FRAME = dataclasses.replace(METADATA, per_frame=True)
FIELDS = [field.name for field in dataclasses.fields(FeatureRow)]


def vector(number, dim=6):
    return np.random.default_rng(number).standard_normal(dim).astype(np.float32)


def clip_rows(count, dim=6):
    """Rows of every kind: whole, parts, unreadable; vectors with zeros of both signs and the smallest numbers."""
    rows = []
    for number in range(count):
        facts = {"path": f"folder/v {number} é.mp4", "sha256": hashlib.sha256(b"%d" % number).hexdigest()}
        if number % 5 == 3:
            rows.append(FeatureRow(path=facts["path"], error="no such file"))
            continue
        if number % 3 == 1:
            facts |= {"start_seconds": 0.1 * number, "end_seconds": 0.1 * number + 1 / 3}
        found = vector(number, dim)
        found[:2] = (-0.0, np.float32(1e-45))
        rows.append(FeatureRow(**facts, embedding=found))
    return rows


def frame_rows(count, frames, dim=6):
    rows = []
    for number in range(count):
        if number % 5 == 3:
            rows.append(FeatureRow(path=f"{number}.mp4", error="it holds no video"))
            continue
        long = frames + number
        rows.append(
            FeatureRow(
                path=f"{number}.mp4",
                sha256="cd" * 32,
                start_seconds=None if number % 2 else float(number),
                embedding=np.random.default_rng(number).standard_normal((long, dim)).astype(np.float32),
                frames=np.arange(long, dtype=np.int32) * 2,
                seconds=np.arange(long) / 30,
            )
        )
    return rows


def write(path, rows, metadata=METADATA):
    with FeatureWriter(path, metadata) as file:
        for row in rows:
            file.add(row)
    return path


def assert_same(found, written):
    for name in FIELDS:
        one, other = getattr(found, name), getattr(written, name)
        if isinstance(other, np.ndarray):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            assert one.tobytes() == other.tobytes()
        else:
            assert one == other, name


@pytest.mark.parametrize("count", [0, 1, 7, 2 * ROWS_A_GROUP + 5])
def test_clips_are_read_as_they_were_written(tmp_path, count):
    rows = clip_rows(count)
    with FeatureFile(write(tmp_path / "a.parquet", rows)) as file:
        assert file.metadata == METADATA
        assert len(file) == count
        for found, written in zip(file, rows, strict=True):
            assert_same(found, written)
        for written in rows[:20] + rows[-20:]:
            assert_same(file.find(written.path, written.start_seconds, written.end_seconds), written)
            assert file.find(written.path, 77.0) is None
        assert file.find("elsewhere.mp4") is None


def test_frames_are_read_as_they_were_written(tmp_path):
    rows = frame_rows(40, 300)  # parts that stand in two row groups are among them
    path = write(tmp_path / "a.parquet", rows, PER_FRAME)
    assert pq.ParquetFile(path).num_row_groups > 2
    with FeatureFile(path) as file:
        assert file.metadata.per_frame
        for found, written in zip(file, rows, strict=True):
            assert_same(found, written)
        for written in rows[::-1]:
            assert_same(file.find(written.path, written.start_seconds, written.end_seconds), written)


def test_a_part_that_spans_three_row_groups(tmp_path):
    (row,) = frame_rows(1, 2 * ROWS_A_GROUP + 10, dim=2)
    metadata = dataclasses.replace(PER_FRAME, dim=2)
    with FeatureFile(write(tmp_path / "a.parquet", [row], metadata)) as file:
        assert_same(file.find("0.mp4"), row)


@pytest.mark.parametrize("per_frame", [False, True])
def test_of_rows_that_are_named_alike_the_first_is_found(tmp_path, per_frame):
    rows = [frame_rows(1, 3)[0] for _ in range(3)] if per_frame else [clip_rows(1)[0] for _ in range(3)]
    rows = [dataclasses.replace(row, embedding=row.embedding + n) for n, row in enumerate(rows)]
    with FeatureFile(write(tmp_path / "a.parquet", rows, PER_FRAME if per_frame else METADATA)) as file:
        assert len(file) == 3
        assert_same(file.find(rows[0].path, rows[0].start_seconds), rows[0])
        for found, written in zip(file, rows, strict=True):
            assert_same(found, written)


def test_keys_with_one_hash_are_told_apart(tmp_path):
    # Python gives -1.0 and -2.0 one hash.
    rows = [FeatureRow(path="a", start_seconds=start, embedding=vector(int(-start))) for start in (-1.0, -2.0, 0.0)]
    assert len({hash(("a", row.start_seconds, None)) for row in rows}) == 2
    with FeatureFile(write(tmp_path / "a.parquet", rows)) as file:
        for row in rows:
            assert_same(file.find("a", row.start_seconds), row)
        assert_same(file.find("a"), rows[2])


def test_a_name_that_is_not_utf8_is_kept(tmp_path):
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    with FeatureFile(write(tmp_path / "a.parquet", [FeatureRow(path=name, embedding=vector(0))])) as file:
        assert file.find(name).path == "caf\\udce9.mp4"
        assert file.find("café.mp4") is None


@pytest.mark.parametrize("per_frame", [False, True])
def test_the_same_rows_give_the_same_bytes(tmp_path, per_frame):
    rows, metadata = (frame_rows(40, 300), PER_FRAME) if per_frame else (clip_rows(ROWS_A_GROUP + 9), METADATA)
    one, other = (write(tmp_path / name, rows, metadata).read_bytes() for name in ("a.parquet", "b.parquet"))
    assert one == other
    assert one != write(tmp_path / "c.parquet", rows[:-1], metadata).read_bytes()


def test_row_groups_do_not_depend_on_what_is_put_in_at_once(tmp_path):
    path = write(tmp_path / "a.parquet", frame_rows(40, 300), PER_FRAME)
    found = pq.ParquetFile(path).metadata
    rows = [found.row_group(number).num_rows for number in range(found.num_row_groups)]
    assert rows[:-1] == [ROWS_A_GROUP] * (len(rows) - 1)


@pytest.mark.parametrize("per_frame", [False, True])
def test_pandas_reads_it(tmp_path, per_frame):
    pandas = pytest.importorskip("pandas")
    rows, metadata = (frame_rows(9, 4), PER_FRAME) if per_frame else (clip_rows(9), METADATA)
    table = pandas.read_parquet(write(tmp_path / "a.parquet", rows, metadata))
    compare(rows, metadata, table.to_dict("records"))
    assert set(table["model_hash"]) == {METADATA.model_hash}


@pytest.mark.parametrize("per_frame", [False, True])
def test_duckdb_reads_it(tmp_path, per_frame):
    duckdb = pytest.importorskip("duckdb")
    rows, metadata = (frame_rows(9, 4), PER_FRAME) if per_frame else (clip_rows(9), METADATA)
    path = write(tmp_path / "a.parquet", rows, metadata)
    with duckdb.connect() as database:
        found = database.execute(f"select * from '{path}'")
        names = [column[0] for column in found.description]
        compare(rows, metadata, [dict(zip(names, row, strict=True)) for row in found.fetchall()])
        (failed,) = database.execute(f"select count(*) from '{path}' where error is not null").fetchone()
    assert failed == sum(row.error is not None for row in rows)


@pytest.mark.parametrize("per_frame", [False, True])
def test_datasets_reads_it(tmp_path, per_frame):
    datasets = pytest.importorskip("datasets")
    rows, metadata = (frame_rows(9, 4), PER_FRAME) if per_frame else (clip_rows(9), METADATA)
    path = write(tmp_path / "a.parquet", rows, metadata)
    bars = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path / "cache"), split="train")
        compare(rows, metadata, list(found))
    finally:
        if bars:
            datasets.enable_progress_bars()


def compare(rows, metadata, found):
    """What another program reads, a dict a row, is what was written, the vectors bit for bit."""
    expected, nothing = [], np.full(metadata.dim, np.nan, np.float32)
    for row in rows:
        facts = {name: getattr(row, name) for name in ("path", "sha256", "start_seconds", "end_seconds", "error")}
        if not metadata.per_frame:
            expected.append(facts | {"embedding": nothing if row.embedding is None else row.embedding})
        elif row.embedding is None:
            expected.append(facts | {"frame": None, "seconds": None, "embedding": nothing})
        else:
            together = zip(row.frames.tolist(), row.seconds.tolist(), row.embedding, strict=True)
            expected += [facts | {"frame": f, "seconds": s, "embedding": e} for f, s, e in together]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name, value in other.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(np.asarray(one[name], np.float32), value)
            elif value is None:
                assert one[name] is None or one[name] != one[name], "pandas has NaN for a number that is not there"
            else:
                assert one[name] == value, name
        assert one["model"] == metadata.model


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    rows_a_group, dim, groups = 256, 512, 24
    monkeypatch.setattr(feature_writer, "ROWS_A_GROUP", rows_a_group)
    metadata = dataclasses.replace(METADATA, dim=dim)
    whole_bytes = groups * rows_a_group * dim * 4
    shared = np.ones(dim, np.float32)
    rows = (FeatureRow(path=f"{number}.mp4", embedding=shared) for number in range(groups * rows_a_group))
    before_bytes, held_bytes = pa.total_allocated_bytes(), 0
    tracemalloc.start()
    try:
        write(tmp_path / "a.parquet", rows, metadata)
        assert tracemalloc.get_traced_memory()[1] < whole_bytes / 3
        assert pa.total_allocated_bytes() - before_bytes < whole_bytes / 3
        tracemalloc.reset_peak()
        with FeatureFile(tmp_path / "a.parquet") as file:
            for number, _ in enumerate(file):
                if number % 100 == 0:
                    held_bytes = max(held_bytes, pa.total_allocated_bytes() - before_bytes)
        assert number == groups * rows_a_group - 1
        assert held_bytes + tracemalloc.get_traced_memory()[1] < whole_bytes / 2
    finally:
        tracemalloc.stop()


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    path = write(tmp_path / "a.parquet", clip_rows(3))
    before = path.read_bytes()

    def rows():
        yield from clip_rows(ROWS_A_GROUP + 1)
        raise KeyError

    with pytest.raises(KeyError):
        write(path, rows())
    assert path.read_bytes() == before
    with pytest.raises(FeatureFileError, match=r"shape \(5,\)"):
        write(path, [FeatureRow(path="a", embedding=np.zeros(5, np.float32))])
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


def test_rows_that_do_not_fit_are_refused(tmp_path):
    flat, frames = vector(0), np.zeros((2, 6), np.float32)
    numbers, times = np.arange(2, dtype=np.int32), np.arange(2.0)
    wrong = [
        (METADATA, FeatureRow(path="a", embedding=frames, frames=numbers, seconds=times)),
        (METADATA, FeatureRow(path="a", embedding=flat, frames=numbers, seconds=times)),
        (PER_FRAME, FeatureRow(path="a", embedding=flat)),
        (PER_FRAME, FeatureRow(path="a", embedding=frames)),
        (PER_FRAME, FeatureRow(path="a", embedding=frames, frames=numbers)),
        (PER_FRAME, FeatureRow(path="a", embedding=frames[:0], frames=numbers[:0], seconds=times[:0])),
    ]
    for metadata, row in wrong:
        with pytest.raises(FeatureFileError, match="a: an embedding of shape"):
            write(tmp_path / "a.parquet", [row], metadata)
    for facts in ({}, {"embedding": flat, "error": "both"}):
        with pytest.raises(AssertionError):
            FeatureRow(path="a", **facts)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FeatureFileError, match=r"none/a\.parquet cannot be written"):
        write(tmp_path / "none" / "a.parquet", [])


def rewrite(path, **changes):
    """Write the file again, as another program might: other metadata or columns."""
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata)
    if "metadata" in changes:
        metadata = changes["metadata"](json.loads(metadata[b"clipact"]))
        table = table.replace_schema_metadata(metadata and {b"clipact": json.dumps(metadata).encode()})
    for name, column in changes.get("columns", {}).items():
        at = table.schema.names.index(name)
        table = table.remove_column(at) if column is None else table.set_column(at, name, column)
    pq.write_table(table, path)
    return path


def test_files_that_are_not_ours_are_refused(tmp_path):
    lengths = pa.array([[1.0], None, None, None], pa.list_(pa.float32()))
    empty = pa.array([None] * 4, pa.list_(pa.float32()))
    cases = [
        ({"metadata": lambda _: None}, "was not written by clipact: it has no metadata 'clipact'"),
        ({"metadata": lambda facts: facts | {"version": 2}}, "another version"),
        ({"metadata": lambda _: [1]}, "another version"),
        ({"metadata": lambda facts: facts | {"clips": "two"}}, "clips is 'two'"),
        ({"metadata": lambda facts: facts | {"clip": {"sampling": "any"}}}, "clip.sampling is 'any'"),
        ({"columns": {"sha256": None}}, r"lacks columns.*sha256 \(string\)"),
        ({"columns": {"start_seconds": pa.array(["0"] * 4)}}, r"start_seconds \(double\)"),
        ({"columns": {"embedding": lengths}}, "damaged: its embeddings are not all of 6"),
        ({"columns": {"embedding": empty}}, "damaged: its embeddings are not all of 6"),
        ({"columns": {"embedding": pa.array(["0"] * 4)}}, "lacks columns.*embedding"),
    ]
    for changes, message in cases:
        path = rewrite(write(tmp_path / "a.parquet", clip_rows(4)), **changes)
        with pytest.raises(FeatureFileError, match=message), FeatureFile(path) as file:
            list(file)
    with FeatureFile(rewrite(write(tmp_path / "a.parquet", clip_rows(4)))) as file:
        assert len(list(file)) == 4, "what was only rewritten is read"


def test_what_is_no_parquet_is_refused(tmp_path):
    with pytest.raises(FeatureFileError, match="no such file"):
        FeatureFile(tmp_path / "a.parquet")
    for raw in (b"", b"PAR1", b"path,error\n", b"PAR1" + bytes(100) + b"PAR1"):
        (tmp_path / "a.parquet").write_bytes(raw)
        with pytest.raises(FeatureFileError, match="cannot be read as Parquet"):
            FeatureFile(tmp_path / "a.parquet")
    with pytest.raises(FeatureFileError, match="cannot be read as Parquet"):
        FeatureFile(tmp_path)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = write(tmp_path / "a.parquet", clip_rows(200, dim=64), dataclasses.replace(METADATA, dim=64))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with FeatureFile(path) as file, pytest.raises(FeatureFileError, match="damaged"):
        list(file)


def test_identity_is_of_what_decides_embeddings():
    same = dataclasses.replace(METADATA, model="runs/a", decoders="another", clipact_version="9")
    assert same.identity == METADATA.identity
    same.check_same(METADATA, name="a.parquet")
    others = {
        "model_hash": "cd" * 32,
        "dim": 7,
        "clip": ClipSpec(frames=8),
        "clips": 3,
        "crops": 3,
        "precision": "bf16",
        "per_frame": True,
    }
    for name, value in others.items():
        other = dataclasses.replace(METADATA, **{name: value})
        assert other.identity != METADATA.identity
        with pytest.raises(FeatureFileError, match=f"a.parquet holds other embeddings.*{name.split('_')[0]}"):
            other.check_same(METADATA, name="a.parquet")
    with pytest.raises(FeatureFileError, match="clip frames is 8, not 4"):
        dataclasses.replace(METADATA, clip=ClipSpec(frames=8)).check_same(METADATA, name="a")


def test_metadata_is_plain_json_for_other_programs(tmp_path):
    raw = pq.read_schema(write(tmp_path / "a.parquet", [])).metadata[b"clipact"]
    facts = json.loads(raw)
    assert facts["version"] == 1
    assert facts["clip"]["frames"] == 4
    assert facts["identity"] == METADATA.identity


def test_without_pyarrow_the_install_is_named(tmp_path, monkeypatch):
    import sys

    path = write(tmp_path / "a.parquet", [])
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    for use in (lambda: FeatureFile(path), lambda: FeatureWriter(path, METADATA)):
        with pytest.raises(MissingLibraryError, match=r"pyarrow is not installed: pip install 'clipact\[parquet\]'"):
            use()
