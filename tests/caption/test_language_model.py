import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from caption.language_model import _Conv1D, _use_linear_in_gpt2, load_language_model
from caption.objectives import masked_mean
from rlcf.errors import UserError

KINDS = ("opt", "gpt2", "llama")
TEXTS = ["a dog above an owl", "a cat", "a key to the left of a dog"]


@pytest.fixture(params=KINDS)
def lm(request, lm_folder):
    return load_language_model(str(lm_folder(request.param)))


def prefix_for(lm, count=1):
    return torch.randn(count, 4, lm.width, generator=torch.Generator().manual_seed(1))


def straightforward(lm, prefix, ids, mask):
    """Prefix and caption read in one pass, each caption with its own copy of the prefix."""
    embedded = torch.cat([prefix.expand(len(ids), -1, -1), lm.model.get_input_embeddings()(ids)], dim=1)
    seen = torch.cat([mask.new_ones(len(ids), prefix.shape[1]), mask], dim=1)
    logits = lm.model(inputs_embeds=embedded, attention_mask=seen).logits[:, prefix.shape[1] - 1 : -1]
    return -F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")


def test_no_parameter_asks_for_gradients(lm):
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert not lm.model.training


def test_a_shared_prefix_is_read_once_with_the_same_result(lm):
    ids, mask = lm.tokenize(TEXTS)
    prefix = prefix_for(lm).requires_grad_()
    ours, plain = lm.token_log_likelihood(prefix, ids, mask), straightforward(lm, prefix, ids, mask)
    torch.testing.assert_close(ours[mask > 0], plain[mask > 0], atol=2e-5, rtol=1e-4)
    first, second = (torch.autograd.grad(value[mask > 0].sum(), prefix)[0] for value in (ours, plain))
    torch.testing.assert_close(first, second, atol=1e-3, rtol=1e-3)


def test_each_caption_may_have_its_own_prefix(lm):
    ids, mask = lm.tokenize(TEXTS)
    prefixes = prefix_for(lm, len(TEXTS))
    together = lm.token_log_likelihood(prefixes, ids, mask)
    for i in range(len(TEXTS)):
        alone = lm.token_log_likelihood(prefixes[i : i + 1], ids[i : i + 1], mask[i : i + 1])[0]
        torch.testing.assert_close(together[i][mask[i] > 0], alone[mask[i] > 0], atol=2e-5, rtol=1e-4)


def test_masked_padding_does_not_change_the_likelihood(lm):
    prefix = prefix_for(lm)
    means = []
    for others in ([], TEXTS):
        ids, mask = lm.tokenize([TEXTS[1], *others])
        means.append(masked_mean(lm.token_log_likelihood(prefix, ids, mask), mask)[0])
    torch.testing.assert_close(*means, atol=2e-5, rtol=1e-4)


def test_an_empty_caption_is_its_bos_alone(lm):
    ids, mask = lm.tokenize([""])
    assert ids.tolist() == [[lm.bos]] and lm.token_log_likelihood(prefix_for(lm), ids, mask).shape == (1, 1)


def test_captions_end_at_a_newline_where_the_vocabulary_has_one(lm_folder):
    newline = load_language_model(str(lm_folder("gpt2")))
    assert newline.tokenizer.decode(newline.stops[:1]) == "\n" and newline.stops[-1] == newline.tokenizer.eos_token_id
    words = load_language_model(str(lm_folder("opt")))
    assert words.stops == (words.tokenizer.eos_token_id,)


def test_a_checkpoints_own_weights_need_no_others(lm_folder, tmp_path):
    folder = shutil.copytree(lm_folder("opt"), tmp_path / "opt")
    weights = {k: v.float() + 0.1 for k, v in load_language_model(str(folder)).model.state_dict().items()}
    weights["lm_head.weight"] = weights["lm_head.weight"] + 1.0
    (folder / "model.safetensors").unlink()
    lm = load_language_model(str(folder), weights=weights)
    held = lm.model.state_dict()
    assert all(torch.equal(held[key], value) for key, value in weights.items())


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("tokenizer.json", "holds no tokenizer"),
        ("config.json", "holds no config.json"),
        ("model.safetensors", "weights of the language model .* cannot be loaded"),
    ],
)
def test_what_a_folder_lacks_is_told(missing, told, lm_folder, tmp_path):
    folder = shutil.copytree(lm_folder("opt"), tmp_path / "opt")
    (folder / missing).unlink()
    with pytest.raises(UserError, match=told):
        load_language_model(str(folder))


def test_weights_of_another_model_are_refused(lm_folder, tmp_path):
    folder = shutil.copytree(lm_folder("opt"), tmp_path / "opt")
    shutil.copy(lm_folder("gpt2") / "model.safetensors", folder)
    with pytest.raises(UserError, match="another model's"):
        load_language_model(str(folder))
    weights = load_language_model(str(lm_folder("gpt2"))).model.state_dict()
    with pytest.raises(UserError, match="is not the one that"):
        load_language_model(str(folder), weights=dict(weights))


def test_an_unknown_name_is_told(monkeypatch):
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: 1 / 0)
    with pytest.raises(UserError, match=r"no/such could not be downloaded or read \(division by zero\); give a folder"):
        load_language_model("no/such")


def test_weights_that_are_not_finite_are_told_with_their_folder_and_name(lm_folder, tmp_path):
    folder = shutil.copytree(lm_folder("opt"), tmp_path / "opt")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("fc1.weight"))
    weights[name][0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=rf"the weights {name} of the language model {folder} are not finite"):
        load_language_model(str(folder))


def test_a_tokenizer_with_more_tokens_than_the_model_is_told(lm_folder, tmp_path):
    words = shutil.copytree(lm_folder("opt"), tmp_path / "words")
    changed = json.loads((words / "tokenizer.json").read_text())
    changed["model"]["vocab"]["unheard-of"] = 10**6
    (words / "tokenizer.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r"the tokenizer of .*words is another model's: it has 1000001 tokens"):
        load_language_model(str(words))


@pytest.mark.parametrize(
    "config", ["[]", '{"model_type": 3}', '{"model_type": "opt", "hidden_size": "x"}', "[" * 100_000]
)
def test_a_config_that_describes_no_model_is_told(config, lm_folder, tmp_path):
    folder = shutil.copytree(lm_folder("opt"), tmp_path / "opt")
    weights = dict(load_language_model(str(folder)).model.state_dict())
    (folder / "config.json").write_text(config)
    with pytest.raises(UserError, match=r"opt"):
        load_language_model(str(folder), weights=weights)


def test_a_config_that_describes_a_far_larger_model_is_told(lm_folder, tmp_path):
    folder = shutil.copytree(lm_folder("opt"), tmp_path / "opt")
    weights = dict(load_language_model(str(folder)).model.state_dict())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 10**10, "ffn_dim": 10**8}))
    with pytest.raises(UserError, match=r"is not the one that .*opt describes \(a model of [\d,]+ numbers"):
        load_language_model(str(folder), weights=weights)


def test_a_config_of_layers_without_end_is_told(lm_folder, tmp_path):
    shutil.copytree(lm_folder("opt"), tmp_path / "lm")
    config = json.loads((tmp_path / "lm" / "config.json").read_text())
    (tmp_path / "lm" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 10**30}))
    with pytest.raises(UserError, match=r"lm has 1000000000\d+ layers"):
        load_language_model(str(tmp_path / "lm"))


def test_gpt2s_layers_are_computed_by_linear():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=512, n_layer=1, n_head=2, n_positions=8)).eval()
    ids = torch.tensor([[1, 2, 3]])
    before = model(ids).logits
    _use_linear_in_gpt2(model)
    assert type(model.transformer.h[0].mlp.c_fc) is _Conv1D
    torch.testing.assert_close(model(ids).logits, before, atol=1e-4, rtol=1e-4)
