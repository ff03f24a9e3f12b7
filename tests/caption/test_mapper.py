import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from caption.mapper import MLPMapper, TransformerMapper, read_checkpoint, save_mapper
from rlcf.errors import UserError

MAPPERS = {
    "transformer": lambda: TransformerMapper(8, 12, prefix_length=5, clip_length=3, layers=2, heads=4, hidden=20),
    "mlp": lambda: MLPMapper(8, 12, prefix_length=5),
}


@pytest.fixture(params=MAPPERS)
def mapper(request):
    return MAPPERS[request.param]()


def test_a_feature_becomes_a_prefix_of_embeddings(mapper):
    assert mapper(torch.randn(7, 8)).shape == (7, 5, 12)


def test_each_features_prefix_is_its_own(mapper):
    features = torch.randn(4, 8)
    torch.testing.assert_close(mapper(features)[2:3], mapper(features[2:3]))


def test_a_checkpoint_gives_the_mapper_back(mapper, tmp_path):
    save_mapper(tmp_path / "mapper.safetensors", mapper, {"heads": 4, "width": 12})
    features = torch.randn(3, 8)
    for path in (tmp_path, tmp_path / "mapper.safetensors"):
        again = read_checkpoint(str(path)).build_mapper(width=12)
        assert torch.equal(again(features), mapper(features))


def test_a_published_file_with_the_language_model_in_it_is_read(mapper, tmp_path):
    weights = {f"clip_project.{key}": value for key, value in mapper.state_dict().items()}
    weights["llm.llm.lm_head.weight"] = torch.ones(2, 2)
    torch.save({"state_dict": weights, "epoch": 3, "optimizer": {}}, tmp_path / "ckpt-latest.pt")
    checkpoint = read_checkpoint(str(tmp_path / "ckpt-latest.pt"))
    assert checkpoint.mapper.keys() == mapper.state_dict().keys()
    assert list(checkpoint.language_model) == ["lm_head.weight"]


def test_half_precision_is_written_and_read_as_fp32(mapper, tmp_path):
    save_mapper(tmp_path / "mapper.safetensors", mapper, {"heads": 4, "width": 12}, half=True)
    assert {value.dtype for value in load_file(tmp_path / "mapper.safetensors").values()} == {torch.float16}
    again = read_checkpoint(str(tmp_path)).build_mapper(12)
    assert {p.dtype for p in again.parameters()} == {torch.float32}


def test_a_mapper_for_another_language_model_is_refused(mapper, tmp_path):
    save_mapper(tmp_path / "mapper.safetensors", mapper, {"heads": 4, "width": 12})
    with pytest.raises(UserError, match="makes embeddings 12 wide, the language model's are 16"):
        read_checkpoint(str(tmp_path)).build_mapper(width=16)


def test_weights_of_something_else_are_refused(tmp_path):
    torch.save({"visual.proj": torch.ones(2, 2)}, tmp_path / "clip.pt")
    with pytest.raises(UserError, match="no captioner's checkpoint"):
        read_checkpoint(str(tmp_path / "clip.pt"))
    torch.save({"clip_project.strange": torch.ones(2, 2)}, tmp_path / "strange.pt")
    with pytest.raises(UserError, match="no mapper of ClipCap's kinds"):
        read_checkpoint(str(tmp_path / "strange.pt")).build_mapper(12)


def test_a_missing_or_unsafe_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no captioner .*nowhere"):
        read_checkpoint(str(tmp_path / "nowhere.pt"))
    with pytest.raises(UserError, match=r"neither mapper.safetensors nor ckpt-latest.pt"):
        read_checkpoint(str(tmp_path))
    (tmp_path / "code.pt").write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(UserError, match=r"code.pt"):
        read_checkpoint(str(tmp_path / "code.pt"))


def test_weights_that_are_not_finite_are_told_with_their_file_and_name(mapper, tmp_path):
    name, tensor = next(iter(mapper.named_parameters()))
    tensor.data.view(-1)[0] = torch.nan
    save_mapper(tmp_path / "mapper.safetensors", mapper, {"heads": 4, "width": 12})
    with pytest.raises(UserError, match=rf"the weights clip_project.{name} of .*mapper.safetensors are not finite"):
        read_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    "described",
    [
        {"heads": 0, "width": 0},
        {"heads": -4, "width": -12},
        {"heads": 5, "width": 5},
        {"heads": "many", "width": "wide"},
        {"heads": None, "width": []},
        {"heads": 1e999, "width": 1e999},
        {"heads": 10**30, "width": 10**30},
    ],
)
def test_a_description_that_does_not_fit_is_told(described, mapper, tmp_path):
    weights = {f"clip_project.{key}": value for key, value in mapper.state_dict().items()}
    torch.save({"state_dict": weights, "described": described}, tmp_path / "ckpt.pt")
    with pytest.raises(UserError, match=r"ckpt.pt"):
        read_checkpoint(str(tmp_path / "ckpt.pt")).build_mapper(12)


@pytest.mark.parametrize("held", ["text", [], {"state_dict": "text"}, {"state_dict": {}}, {1: 2}])
def test_what_holds_no_weights_is_told(held, tmp_path):
    torch.save(held, tmp_path / "ckpt.pt")
    with pytest.raises(UserError, match=r"ckpt.pt is no captioner's checkpoint"):
        read_checkpoint(str(tmp_path / "ckpt.pt"))


@pytest.mark.parametrize("described", ["text", ["heads"], 3])
def test_a_description_that_is_none_is_told(described, mapper, tmp_path):
    weights = {f"clip_project.{key}": value for key, value in mapper.state_dict().items()}
    torch.save({"state_dict": weights, "described": described}, tmp_path / "ckpt.pt")
    save_file(weights, tmp_path / "ckpt.safetensors", {"captioner": json.dumps(described)})
    save_file(weights, tmp_path / "deep.safetensors", {"captioner": "[" * 100_000})
    for name in ("ckpt.pt", "ckpt.safetensors", "deep.safetensors"):
        with pytest.raises(UserError, match=f"{name} is damaged"):
            read_checkpoint(str(tmp_path / name))
