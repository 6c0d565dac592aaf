"""The numbers: configurations through the importer, against what mergekit 0.1.5 computed from them.

tests/oracle has whole outputs. `peer/<name>/expected.json` has samples of further ones: for each
tensor its shape, its euclidean norm, and nine elements at equal distances. The models are those of
tests/oracle/data/models.
"""

from __future__ import annotations

import json
from pathlib import Path

import mergec
import numpy as np
import pytest
from mergec.cli.import_mergekit.command import import_file
from mergec.runtime.catalog.local import LocalCatalog
from safetensors.numpy import load_file

HERE = Path(__file__).parent
ORACLE = HERE.parent / "oracle" / "data"
WHOLE = sorted(p.parent for p in (ORACLE / "cases").glob("*/config.yml"))
SAMPLED = sorted(p.parent for p in (HERE / "peer").glob("*/config.yml"))


def merged(config: Path, out: Path) -> dict[str, np.ndarray]:
    source, _ = import_file(str(config), LocalCatalog())
    mergec.compile(source, device="cpu").run(out)
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("case", WHOLE, ids=lambda c: c.name)
def test_an_oracle_case(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ORACLE / "models")
    made, expected = merged(case / "config.yml", tmp_path / "out"), load_file(case / "expected.safetensors")
    assert made.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(made[name], tensor, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("case", SAMPLED, ids=lambda c: c.name)
def test_a_sampled_case(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ORACLE / "models")
    made = merged(case / "config.yml", tmp_path / "out")
    expected = json.loads((case / "expected.json").read_text("utf-8"))
    assert made.keys() == expected.keys()
    for name, (shape, norm, elements) in expected.items():
        tensor = made[name]
        assert list(tensor.shape) == shape, name
        at = np.linspace(0, tensor.size - 1, 9).astype(int)
        np.testing.assert_allclose(tensor.reshape(-1)[at], elements, rtol=1e-5, atol=1e-7, err_msg=name)
        np.testing.assert_allclose(np.linalg.norm(tensor.astype(np.float64)), norm, rtol=1e-6, err_msg=name)
