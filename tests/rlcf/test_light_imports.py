"""A command imports no library that its models do not need, and those that need one get it."""

import json
import subprocess
import sys

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from rlcf.clip.loading import load_clip
from tests.tools import ROOT

TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
TIMM = {"timm_model_name": "resnet18", "timm_model_pretrained": False, "image_size": 32, "timm_pool": "avg"}
IMPORTS = "[name for name in ('timm', 'transformers', 'torch._dynamo') if name in sys.modules]"


def child(code, *words):
    """Runs code in a new process. Returns the last line that it prints, parsed as JSON."""
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def pictures(tmp_path):
    """Two classes of a picture each."""
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / "pictures" / name / "0.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("tune", ["prompt", "image-encoder"])
def test_a_run_imports_no_further_towers_and_no_compiler(tmp_path, pictures, tune):
    flags = (
        "--student demo-student --reward demo-reward --device cpu --workers 0 --views 8 --selection 0.5 --sample-k 2"
    )
    places = ["--data", str(pictures), "--datasets", "folder", "--output", str(tmp_path / "run"), "--tune", tune]
    code = (
        f"import atexit, json, sys; atexit.register(lambda: print(json.dumps({IMPORTS})))\n"
        "from rlcf.start import start; start('classification.main')"
    )
    assert child(code, *flags.split(), *places) == []


def test_a_tower_of_timm_is_built_after_light_imports_too(tmp_path):
    torch.manual_seed(0)
    config = {"embed_dim": 16, "vision_cfg": TIMM, "text_cfg": TEXT}
    save_file(open_clip.CLIP(**config).state_dict(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 32}}))
    code = (
        "import json, sys\nfrom rlcf.light_imports import light_imports\n"
        "with light_imports():\n    from rlcf.clip.loading import load_clip\n"
        f"import torch; before = {IMPORTS}; clip = load_clip(sys.argv[1])\n"
        "print(json.dumps([before, clip.encode_image(torch.ones(1, 3, 32, 32)).tolist()]))"
    )
    before, features = child(code, str(tmp_path))
    assert before == []
    expected = load_clip(str(tmp_path)).encode_image(torch.ones(1, 3, 32, 32))
    torch.testing.assert_close(torch.tensor(features), expected, rtol=1e-5, atol=1e-6)


def test_what_was_left_out_can_be_imported_afterwards():
    code = (
        "import json, sys\nfrom rlcf.light_imports import import_towers, light_imports\n"
        "with light_imports():\n    import open_clip, torchvision\n"
        f"before = {IMPORTS}\n"
        "from torchvision.ops.roi_align import is_compile_supported\n"
        "compiles = is_compile_supported('cpu')\n"
        "import_towers()\n"
        "from transformers import BertConfig\n"
        "config = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)\n"
        "text = open_clip.model.HFTextEncoder('bert', 4, config=config, pretrained=False)\n"
        "import timm, torch; real = torch.optim.AdamW(text.parameters()) and torch._dynamo.disable\n"
        f"print(json.dumps([before, type(compiles).__name__, text.output_dim, timm.__name__, {IMPORTS}]))"
    )
    assert child(code) == [[], "bool", 4, "timm", ["timm", "transformers", "torch._dynamo"]]


def test_a_library_that_is_needed_is_imported_at_once():
    code = (
        "import json, sys\nfrom rlcf.light_imports import light_imports\n"
        "with light_imports('transformers'):\n    import open_clip\n"
        "print(json.dumps([open_clip.hf_model.transformers is not None, 'timm' in sys.modules]))"
    )
    assert child(code) == [True, False]


def test_a_reward_of_ones_own_may_build_any_tower():
    code = (
        "import json, sys\nfrom rlcf.light_imports import light_imports\n"
        "with light_imports():\n    from rlcf.run.setup import import_reward\n"
        "import_reward('py:json:dumps')\n"
        "import open_clip; print(json.dumps([bool(open_clip.hf_model.transformers), bool(open_clip.timm_model.timm)]))"
    )
    assert child(code) == [True, True]
