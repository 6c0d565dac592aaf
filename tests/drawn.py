"""What the tests of the methods merge: any shapes, dtypes and numbers, and how near the result must
be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import reference
import torch
from hypothesis import strategies as st
from merging import Tensors

LABELS = ("a", "b", "c")
HALF_UNIT = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
SMALLEST = {"float32": 2.0**-149, "float16": 2.0**-25, "bfloat16": 2.0**-134}


# --- what is merged ------------------------------------------------------------------------------

sizes = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)
shapes = st.one_of(sizes, st.sampled_from([(), (0,), (1,), (3, 0, 2), (1, 1), (257,), (40, 9)]))
numbers = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.5, -0.25, 2.0]), st.floats(-2, 2, width=32).map(lambda x: round(x, 4))
)
densities = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 0.29]), st.floats(0, 1).map(lambda x: round(x, 4)))


@dataclass(frozen=True)
class Inputs:
    """Names to shapes, how the numbers are made, and the dtype of everything."""

    shapes: Mapping[str, tuple[int, ...]]
    coarse: bool
    dtype: str
    seed: int

    def tensors(self, model: int) -> dict[str, torch.Tensor]:
        """Model -1 is the base. Coarse numbers make ties in magnitude and sums of exactly 0."""
        random = np.random.default_rng((self.seed, model + 1))
        out = {}
        for name, shape in self.shapes.items():
            if self.coarse:
                values = random.integers(-3, 4, shape) / 8
            else:
                values = random.standard_normal(shape) * 10.0 ** random.uniform(-4, 0, shape)
            out[name] = torch.tensor(values, dtype=torch.float64).to(getattr(torch, self.dtype))
        return out


@st.composite
def inputs(draw: st.DrawFn, names: tuple[str, ...] = ("x", "y.weight", "y.bias", "z")) -> Inputs:
    return Inputs(
        {name: draw(shapes) for name in names},
        draw(st.booleans()),
        draw(st.sampled_from(sorted(HALF_UNIT))),
        draw(st.integers(0, 2**32)),
    )


def agree(
    made: torch.Tensor, wanted: reference.Array, scale: reference.Array, sure: reference.Mask | None = None
) -> None:
    """Equal up to float32 arithmetic on numbers of size `scale` and one rounding to the dtype
    made."""
    dtype = str(made.dtype).removeprefix("torch.")
    assert tuple(made.shape) == wanted.shape
    error = np.abs(made.to(torch.float64).numpy() - wanted)
    allowed = HALF_UNIT[dtype] * 1.001 * np.abs(wanted) + SMALLEST[dtype] * 1.001 + 4e-6 * scale
    bad = (error > allowed) | ~np.isfinite(error)
    if sure is not None:
        bad &= sure
    assert not bad.any(), f"{made.numpy(force=True) if made.dtype != torch.bfloat16 else made} is not {wanted}"


def wide(tensors: Tensors) -> dict[str, reference.Array]:
    return {name: tensor.to(torch.float64).numpy() for name, tensor in tensors.items()}


def text(values: list[float]) -> str:
    return "[" + ", ".join(map(repr, values)) + "]"


def names_in(values: list[float]) -> list[str]:
    return list(LABELS[: len(values)])
