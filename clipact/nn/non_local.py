"""Non-local blocks: each place of a clip's maps sees all others, in space and time (arXiv 1711.07971)."""

from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clipact.nn.attention import begin_at_zero

Pairwise = Literal["embedded_gaussian", "gaussian", "dot_product"]


class NonLocal(nn.Module):
    """x + W y, where y is at each place a mean of g(x) over all places, weighted by how the two are related.

    pairwise  the relation f: "gaussian" exp(xi . xj) (equation 2), "embedded_gaussian" exp(theta(xi) . phi(xj))
              (equation 3), both made to add up to 1; or "dot_product" theta(xi) . phi(xj), over the number of places
              (equation 4)

    W begins at zero, and the block as the identity (section 3.3). Half as many channels inside; no subsampling.
    """

    def __init__(self, channels: int, *, pairwise: Pairwise = "embedded_gaussian") -> None:
        super().__init__()
        inside = max(1, channels // 2)
        self.pairwise = pairwise
        self.value = nn.Linear(channels, inside)
        self.query = self.key = None
        if pairwise != "gaussian":
            self.query, self.key = nn.Linear(channels, inside), nn.Linear(channels, inside)
        self.merge = nn.Linear(inside, channels)
        begin_at_zero(self.merge)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """The maps after the block."""
        places = rearrange(x, "b c t h w -> b (t h w) c")
        query = places if self.query is None else self.query(places)
        key = places if self.key is None else self.key(places)
        value = self.value(places)
        if self.pairwise == "dot_product":
            # (q k^T) v = q (k^T v): no matrix of places by places.
            seen = query @ (key.transpose(1, 2) @ value) / places.shape[1]
        else:
            seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return x + rearrange(self.merge(seen), "b (t h w) c -> b c t h w", t=x.shape[2], h=x.shape[3])
