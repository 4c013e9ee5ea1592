"""Checkpoints that could run code are refused."""

import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file

from vsel_platform.errors import ModelError, UnsafeCheckpointError
from vsel_platform.models.safety import (
    check_safetensors,
    load_state_dict_weights_only,
    resolve_checkpoint,
    state_hash,
    weight_files,
    weights_hash,
)


class Poison:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "executed"


def write_weights(path, value=1.0):
    save_file({"w": torch.full((3,), value)}, path)
    return path


def test_a_directory_with_safetensors_is_taken(tmp_path):
    write_weights(tmp_path / "model.safetensors")
    assert resolve_checkpoint(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "x.pkl", "last.ckpt"])
def test_a_directory_of_pickles_is_refused_with_the_way_to_convert(tmp_path, marker, name):
    torch.save({"w": Poison(marker)}, tmp_path / name)
    with pytest.raises(UnsafeCheckpointError, match=f"{name}.*save_file"):
        resolve_checkpoint(str(tmp_path))
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_under_a_safetensors_name_is_refused(tmp_path, marker, protocol):
    file = tmp_path / "model.safetensors"
    file.write_bytes(pickle.dumps(Poison(marker), protocol))
    with pytest.raises(UnsafeCheckpointError, match=r"model\.safetensors: not a safetensors file"):
        weight_files(tmp_path)
    assert not marker.exists()


def test_a_torch_archive_under_a_safetensors_name_is_refused(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UnsafeCheckpointError):
        weight_files(tmp_path)


@pytest.mark.parametrize("header", [b"[]", b'{"w": 1}', b'{"w": {"data_offsets": [0]}}', b"not json"])
def test_a_header_that_describes_no_tensors_is_refused(tmp_path, header):
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UnsafeCheckpointError):
        check_safetensors(file)


def test_a_file_with_a_giant_header_is_refused_without_reading_it(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(UnsafeCheckpointError):
        check_safetensors(file)


def test_a_cut_off_file_is_named_with_both_sizes(tmp_path):
    file = write_weights(tmp_path / "model.safetensors")
    data = file.read_bytes()
    file.write_bytes(data[:-4])
    with pytest.raises(ModelError, match=f"{len(data) - 4} bytes where its header promises {len(data)}"):
        check_safetensors(file)


def test_an_empty_directory_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match=r"no \.safetensors weights"):
        resolve_checkpoint(str(tmp_path))


def test_an_unknown_model_offline_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="hf download nobody/nothing"):
        resolve_checkpoint("nobody/nothing")


def test_a_hub_snapshot_without_safetensors_is_refused(tmp_path, monkeypatch):
    asked = {}

    def snapshot(model, *, revision, allow_patterns):
        asked.update(model=model, revision=revision, patterns=allow_patterns)
        (tmp_path / "config.json").write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(UnsafeCheckpointError, match=r"'a/b' has no \.safetensors"):
        resolve_checkpoint("a/b", "main")
    assert asked["revision"] == "main"
    assert not any("bin" in pattern or pattern.endswith(".pt") for pattern in asked["patterns"])


def test_the_hash_depends_on_the_weights_alone(tmp_path):
    hashes = []
    for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        (tmp_path / name).mkdir()
        write_weights(tmp_path / name / "model.safetensors", value)
        (tmp_path / name / "config.json").write_text(json.dumps({"name": name}))
        hashes.append(weights_hash(tmp_path / name))
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_rewritten_file_gets_a_new_hash(tmp_path):
    file = write_weights(tmp_path / "model.safetensors")
    before = weights_hash(tmp_path)
    save_file({"w": torch.full((4,), 5.0)}, file)
    assert weights_hash(tmp_path) != before


def test_the_hash_in_memory_sees_every_parameter_and_its_dtype():
    model = torch.nn.Linear(2, 2)
    before = state_hash(model)
    assert state_hash(model) == before
    with torch.no_grad():
        model.bias[1] += 1
    changed = state_hash(model)
    assert changed != before
    assert state_hash(model.to(torch.bfloat16)) != changed


def test_plain_tensors_load_through_the_restricted_loader(tmp_path):
    torch.save({"w": torch.arange(3)}, tmp_path / "w.pth")
    assert load_state_dict_weights_only(tmp_path / "w.pth")["w"].tolist() == [0, 1, 2]


def test_a_poisoned_state_dict_is_refused_and_not_run(tmp_path, marker):
    torch.save({"w": torch.arange(3), "x": Poison(marker)}, tmp_path / "w.pth")
    with pytest.raises(UnsafeCheckpointError, match=r"w\.pth"):
        load_state_dict_weights_only(tmp_path / "w.pth")
    assert not marker.exists()


def test_a_file_that_is_no_state_dict_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UnsafeCheckpointError, match="expected a state dict"):
        load_state_dict_weights_only(tmp_path / "list.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(UnsafeCheckpointError):
        load_state_dict_weights_only(tmp_path / "junk.pth")
    with pytest.raises(ModelError, match="no such file"):
        load_state_dict_weights_only(tmp_path / "absent.pth")
