#!/usr/bin/env bash
# The same weights give other bits when they stand at another place of a safetensors file.
#
# Versions: torch 2.14.1, safetensors 0.8.0, numpy 2.4.6; x86-64 Linux, one thread.
# Guess:    a tensor that is equal to the bit gives equal results, whatever file it was read from.
# Seen:     safe_open(...).get_tensor maps the file into memory, and the format aligns a tensor to the size of its
#           numbers only. With one more tensor of one number in the file, a float32 matrix lies at an address that is
#           12 instead of 16 modulo 64; torch.nn.functional.linear of a single row then differs by about 8e-06. After .clone(), which aligns it, both are equal to the bit. Batches of 8 rows do not differ.
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.14.1" "safetensors==0.8.0" "numpy==2.4.6"
cd "$folder"
venv/bin/python - <<'PYTHON'
import torch
from safetensors import safe_open
from safetensors.torch import save_file

torch.manual_seed(0)
torch.set_num_threads(1)
weight, row, batch = torch.randn(256, 256), torch.randn(1, 256), torch.randn(8, 256)


def read(name, **others):
    save_file({"weight": weight, **others}, name)
    with safe_open(name, framework="pt") as file:
        return file.get_tensor("weight")


alone, beside = read("alone.safetensors"), read("beside.safetensors", a=torch.zeros(1))
linear = torch.nn.functional.linear
assert torch.equal(alone, beside)
apart = (linear(row, alone) - linear(row, beside)).abs().max().item()
print(f"addresses modulo 64: {alone.data_ptr() % 64} and {beside.data_ptr() % 64}")
print(f"one row: largest difference {apart:.1e}")
assert alone.data_ptr() % 64 != beside.data_ptr() % 64
assert 0 < apart < 1e-4
assert torch.equal(linear(row, alone.clone()), linear(row, beside.clone()))
assert torch.equal(linear(batch, alone), linear(batch, beside))
print("as clones: equal to the bit; eight rows: equal to the bit")
PYTHON
