import pytest
import torch
from einops import rearrange

from clipact.models.nn.attention import interpolate_positions, sinusoidal_grid, sinusoidal_positions


def test_positions_are_stretched_along_time_alone():
    table = torch.arange(4.0)[:, None, None].expand(4, 2, 3)
    longer = interpolate_positions(table, 8)
    assert longer.shape == (8, 2, 3)
    assert longer[:, 1, 2].tolist() == [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]
    assert interpolate_positions(table, 4) is table


def test_sines_tell_every_place_from_every_other():
    table = sinusoidal_positions(50, 16)
    assert table.shape == (50, 16)
    apart = torch.cdist(table, table) + torch.eye(50)
    assert apart.min() > 0.1
    torch.testing.assert_close(table[3, :2], torch.stack([torch.tensor(3.0).sin(), torch.tensor(3.0).cos()]))


@pytest.mark.parametrize(
    ("grid", "width"), [((4, 2, 2), 16), ((2, 3, 5), 32), ((8, 14, 14), 192), ((16, 14, 14), 768), ((8, 7, 7), 6)]
)
def test_sines_of_a_grid_tell_every_step_row_and_column_from_every_other(grid, width):
    table = sinusoidal_grid(*grid, width=width)
    assert table.shape == (*grid, width)
    rows = rearrange(table, "t h w d -> (t h w) d")
    nearest = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
    assert nearest.min() > 0.1


def test_sines_of_a_grid_belong_to_one_axis_each():
    table = sinusoidal_grid(5, 3, 4, width=18)
    for axis, columns in enumerate((slice(0, 6), slice(6, 12), slice(12, 18))):
        own = table[..., columns].movedim(axis, 0).flatten(1, 2)
        torch.testing.assert_close(own, sinusoidal_positions(len(own), 6)[:, None].expand_as(own), atol=0, rtol=0)
