#!/usr/bin/env bash
# pyarrow 25 writes a Parquet file with a null in a fixed-size list of floats, and then cannot read it; 26 can.
#
# Versions: pyarrow 25.0.0 and 26.0.1, DuckDB 2.0.1, numpy 2.4.6.
# Guess:    a column of embeddings, fixed_size_list<float32>, takes a null where a video has none, like any column.
# Seen:     pyarrow 25 writes the file without a word; its own reader then says "Expected all lists to be of size=4 but
#           index 2 had size=0". DuckDB reads the same file. pyarrow 26 reads both its own file and that of 25: the
#           fault is in the reader, so that a file written today fails for whoever has an older pyarrow.
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/old" && "$folder/old/bin/pip" install -q "pyarrow==25.0.0" "numpy==2.4.6" "duckdb==2.0.1"
python3 -m venv "$folder/new" && "$folder/new/bin/pip" install -q "pyarrow==26.0.1" "numpy==2.4.6"
cat > "$folder/write.py" <<'PYTHON'
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

vectors = pa.array([np.ones(4, np.float32), None], pa.list_(pa.float32(), 4))
pq.write_table(pa.table({"embedding": vectors}), sys.argv[1])
PYTHON
cat > "$folder/read.py" <<'PYTHON'
import sys

import pyarrow.parquet as pq

try:
    print(pq.read_table(sys.argv[1]).column("embedding").to_pylist())
except Exception as error:
    print("cannot be read:", str(error).splitlines()[0])
PYTHON
cd "$folder"
old/bin/python write.py old.parquet
new/bin/python write.py new.parquet
for reader in old new; do
    for file in old new; do
        echo "$file.parquet read by $reader: $("$reader/bin/python" read.py "$file.parquet")" | tee -a seen
    done
done
old/bin/python -c "import duckdb; print('old.parquet read by DuckDB:', duckdb.sql(\"select embedding from 'old.parquet'\").fetchall())" | tee -a seen
test "$(grep -c 'read by old: cannot be read: Expected all lists to be of size=4' seen)" = 2
test "$(grep -c 'read by new: \[\[1.0, 1.0, 1.0, 1.0\], None\]' seen)" = 2
grep -q 'read by DuckDB: .*None' seen
