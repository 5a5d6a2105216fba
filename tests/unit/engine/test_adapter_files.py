from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from serving.engine.adapter_files import check_adapter
from serving.errors import BadAdapter

Q = "model.layers.0.self_attn.q_proj"
IN, OUT, RANK = 8, 6, 4


class Adapter:
    """A LoRA adapter's directory beside its base checkpoint's."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "adapter"
        self.base = folder / "tiny-llama"
        self.config: dict[str, Any] = {
            "r": RANK,
            "peft_type": "LORA",
            "base_model_name_or_path": "/somewhere/tiny-llama",
        }
        self.shapes = {
            f"base_model.model.{Q}.lora_A.weight": (RANK, IN),
            f"base_model.model.{Q}.lora_B.weight": (OUT, RANK),
        }
        self.path.mkdir()
        self.base.mkdir()
        save_file({f"{Q}.weight": np.zeros((OUT, IN))}, self.base / "model.safetensors")

    @property
    def weights(self) -> Path:
        return self.path / "adapter_model.safetensors"

    def write(self) -> None:
        (self.path / "adapter_config.json").write_text(json.dumps(self.config))
        tensors = {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}
        save_file(tensors, self.weights)

    def check(self, names: frozenset[str] = frozenset({"tiny", "tiny-llama"})) -> None:
        check_adapter(str(self.path), base_path=str(self.base), base_names=names, max_rank=8)

    def refusal(self) -> str:
        with pytest.raises(BadAdapter) as caught:
            self.check()
        return caught.value.message


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    adapter = Adapter(tmp_path)
    adapter.write()
    return adapter


def test_a_good_adapter(adapter: Adapter) -> None:
    adapter.check()


@pytest.mark.parametrize("rank", [0, 9, None, "4", -1])
def test_wrong_rank(adapter: Adapter, rank: object) -> None:
    adapter.config["r"] = rank
    adapter.write()
    assert repr(rank) in adapter.refusal()


@pytest.mark.parametrize(
    ("part", "shape"),
    [
        ("A", (RANK, IN + 1)),
        ("A", (RANK + 1, IN)),
        ("A", (IN, RANK)),
        ("A", (RANK * IN,)),
        ("B", (OUT + 1, RANK)),
        ("B", (OUT, RANK - 1)),
    ],
)
def test_wrong_shape(adapter: Adapter, part: str, shape: tuple[int, ...]) -> None:
    adapter.shapes[f"base_model.model.{Q}.lora_{part}.weight"] = shape
    adapter.write()
    assert f"lora_{part}.weight has shape {shape}" in adapter.refusal()


def test_a_module_the_base_does_not_have(adapter: Adapter) -> None:
    adapter.shapes["base_model.model.model.layers.9.mlp.lora_A.weight"] = (RANK, IN)
    adapter.write()
    assert "model.layers.9.mlp" in adapter.refusal()


def test_a_tensor_that_is_no_lora_factor(adapter: Adapter) -> None:
    adapter.shapes[f"base_model.model.{Q}.weight"] = (OUT, IN)
    adapter.write()
    assert "not a LoRA factor" in adapter.refusal()


def test_no_tensors(adapter: Adapter) -> None:
    adapter.shapes.clear()
    adapter.write()
    assert adapter.refusal() == "adapter has no tensors"


def test_another_base(adapter: Adapter) -> None:
    adapter.config["base_model_name_or_path"] = "org/huge-llama"
    adapter.write()
    assert "'huge-llama'" in adapter.refusal()
    adapter.check(names=frozenset())
    adapter.check(names=frozenset({"Huge-Llama"}))  # repository names ignore case


def test_another_kind_of_adapter(adapter: Adapter) -> None:
    adapter.config["peft_type"] = "IA3"
    adapter.write()
    assert "'IA3'" in adapter.refusal()


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(adapter: Adapter, name: str) -> None:
    (adapter.path / name).unlink()
    assert f"cannot read {name}" in adapter.refusal()


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_truncated_file(adapter: Adapter, keep: int) -> None:
    adapter.weights.write_bytes(adapter.weights.read_bytes()[:keep])
    assert "cannot read adapter_model.safetensors" in adapter.refusal()


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_broken_configuration(adapter: Adapter, text: str) -> None:
    (adapter.path / "adapter_config.json").write_text(text)
    assert "adapter_config.json" in adapter.refusal()


def test_a_base_without_weights_skips_the_shapes(adapter: Adapter) -> None:
    (adapter.base / "model.safetensors").unlink()
    adapter.check()
