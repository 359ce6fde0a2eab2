import pytest

from clipact.errors import ConfigError
from clipact.models.towers.attention_pool import AttentionPoolHead
from clipact.models.towers.text import BertText
from clipact.models.towers.tower import Head


@pytest.mark.parametrize(
    ("config", "wrong", "said"),
    [
        (Head.Config, {"dropout": 1.5}, "dropout is 1.5; it takes a chance from 0, below 1"),
        (Head.Config, {"dim": 0}, "dim is 0"),
        (Head.Config, {"hidden": -1}, "hidden -1"),
        (Head.Config, {"blocks": -1}, "blocks -1"),
        (AttentionPoolHead.Config, {"dropout": -0.1}, "dropout is -0.1"),
        (BertText.Config, {"dropout": 1.0}, "dropout is 1;"),
        (BertText.Config, {"dropout": float("nan")}, "dropout is nan"),
    ],
)
def test_heads_and_towers_that_cannot_be_built_are_refused(config, wrong, said):
    with pytest.raises(ConfigError, match=said):
        config(**wrong)
