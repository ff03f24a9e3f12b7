import pickle

import pytest
import torch
from safetensors.torch import load_file

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
    with pytest.raises(UserError, match=r"no weight file .*nowhere"):
        read_checkpoint(str(tmp_path / "nowhere.pt"))
    with pytest.raises(UserError, match=r"neither mapper.safetensors nor ckpt-latest.pt"):
        read_checkpoint(str(tmp_path))
    (tmp_path / "code.pt").write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(UserError, match=r"code.pt"):
        read_checkpoint(str(tmp_path / "code.pt"))
