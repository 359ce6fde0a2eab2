"""An index of Flickr8k's captions: exact against numpy, both approximations against exact, and nearest ones to read.

    python eval/benchmarks/label_index_captions.py --data DIR [--model mini] [--json]

DIR holds flickr8k/captions.csv and the pictures that it names. Every caption is encoded once, and the same vectors go
into three indexes: exact, HNSW and IVF-PQ, the last two forced and built for a recall@10 of 0.99. They are asked with
the 1,000 test pictures, and with rows of their own moved to a cosine of 0.4, by which a build chooses how far a search
looks. The five captions nearest to each clip of examples/ are printed, to be read.

Exit code 1 when the exact index does not find what numpy finds, or HNSW's recall@10 is under 0.99 for either.
"""

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from clipact.embed.embed import embed_videos
from clipact.embed.options import EmbedOptions
from clipact.label_index import IndexEntry, IndexMetadata, IndexPlan, build_index, measure_quality
from clipact.label_index.faiss_build import OWN_ROWS, sample_queries
from clipact.models.zoo import load_model
from clipact.prompts import clean

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.mp4"))
KINDS = ("exact", "hnsw", "ivf-pq")
RECALL, DEPTH = 0.99, 10


def read_captions(data):
    """An entry for each line of the table, repeated captions included, and the pictures of the test split."""
    with (data / "flickr8k" / "captions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    entries = [
        IndexEntry(id=str(number), text=clean(row["caption"]), metadata={"path": row["path"]})
        for number, row in enumerate(rows)
    ]
    tests = dict.fromkeys(row["path"] for row in rows if row["split"] == "test")
    return entries, [data / "flickr8k" / path for path in tests]


def encode_captions(model, entries):
    """The unit vectors of captions."""
    return model.encode_text([entry.text for entry in entries])


def encode_media(model, paths):
    """The unit vectors of pictures or clips."""
    return embed_videos(paths, model, options=EmbedOptions())


def compare_with_numpy(index, vectors, queries):
    """The largest difference of the exact index's cosines, and how many of its rows are not numpy's."""
    cosines = queries @ vectors.T
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, :DEPTH]
    found = index.search(queries, DEPTH)
    wrong = found.rows != rows
    wrong &= abs(np.take_along_axis(cosines, found.rows, 1) - np.take_along_axis(cosines, rows, 1)) > 1e-6  # no tie
    return float(abs(found.cosines - np.take_along_axis(cosines, rows, 1)).max()), int(wrong.sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    model = load_model(given.model, device="cpu")
    entries, pictures = read_captions(given.data)
    begun = time.perf_counter()
    vectors = encode_captions(model, entries)
    result = {"captions": len(entries), "dim": model.encoder.dim, "encoding_seconds": time.perf_counter() - begun}
    asked = {"test pictures": encode_media(model, pictures)}
    metadata = IndexMetadata(model=model.name, model_key=model.key, wording="none", dim=model.encoder.dim)
    failed = []
    with tempfile.TemporaryDirectory() as place:
        for kind in KINDS:
            begun = time.perf_counter()
            index = build_index(
                Path(place) / kind,
                entries,
                lambda some: vectors[[int(entry.id) for entry in some]],
                metadata=metadata,
                plan=IndexPlan(kind=kind, recall=RECALL),
            )
            row = result[kind] = {"build_seconds": time.perf_counter() - begun}
            if kind == "exact":
                row["apart"], row["wrong"] = compare_with_numpy(index, vectors, asked["test pictures"])
                if row["wrong"] or row["apart"] > 1e-5:
                    failed.append(f"exact: {row['wrong']} rows are not numpy's, cosines differ by {row['apart']:.1e}")
                nearest = index.search(encode_media(model, EXAMPLES), 5)
                result["nearest"] = {
                    clip.name: [
                        [round(float(cosine), 3), entry.text] for cosine, entry in zip(cosines, found, strict=True)
                    ]
                    for clip, cosines, found in zip(
                        EXAMPLES, nearest.cosines, map(index.entries, nearest.rows), strict=True
                    )
                }
                continue
            asked[OWN_ROWS] = sample_queries(index, count=1000, seed=1)
            row |= {
                "factory": index.manifest.faiss.factory,
                "search_effort": index.manifest.faiss.search_effort,
            }
            for source, queries in asked.items():
                row[source] = vars(measure_quality(index, queries, source=source))
                if kind == "hnsw" and row[source]["recall_10"] < RECALL:
                    failed.append(f"hnsw: recall@10 is {row[source]['recall_10']:.4f} for {source}; {RECALL} is wanted")
    result["failed"] = failed
    if given.json:
        print(json.dumps(result, indent=2))
        return bool(failed)
    print(f"{len(entries):,} captions of {model.encoder.dim} numbers, encoded in {result['encoding_seconds']:.0f} s")
    print(f"exact, as numpy: {result['exact']['wrong']} rows differ, cosines by {result['exact']['apart']:.1e}\n")
    print(
        "| index | built in, s | asked with | recall@1 | recall@10 | another first answer |\n|---|---|---|---|---|---|"
    )
    for kind in KINDS[1:]:
        row = result[kind]
        for source in asked:
            found = row[source]
            print(
                f"| {row['factory']}, effort {row['search_effort']} | {row['build_seconds']:.0f} | {source} "
                f"| {found['recall_1']:.4f} | {found['recall_10']:.4f} | {100 * found['first_changed']:.1f} % |"
            )
    for clip, lines in result["nearest"].items():
        print(f"\n{clip}", *(f"  {cosine:.3f}  {text}" for cosine, text in lines), sep="\n")
    print("\n" + "\n".join(failed or ["all as it must be"]))
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
