"""A mistake is told in one sentence, with exit code 2."""

import pytest
import torch

from classification.config import ClassificationConfig
from classification.main import main
from classification.methods import METHODS
from rlcf.errors import UserError
from rlcf.run.config import parse_config
from tests.tools import run_script

from .conftest import TINY_RUN


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "/no/such"], "no data folder '/no/such'; give --data the folder that holds the datasets"),
        (["--data", ""], "no data folder ''; give --data the folder that holds the datasets"),
        (["--datasets", "imagenet"], "unknown dataset 'imagenet'; there are I, A, V, R, K, C, flower102, "),
        (["--datasets", "folder:fog"], "no folder EMOJI/fog for dataset folder:fog"),
        (["--datasets", "R"], "dataset R was not found; tried EMOJI/imagenet-r, EMOJI/imagenet-rendition/imagenet-r, "),
        (["--sample-k", "7"], "--sample-k 7 exceeds the 6 classes of folder:blur; give 6 or fewer"),
        (["--selection", "0.1"], "--selection 0.1 of --views 8 keeps no view; raise one of them"),
        (["--selection", "0"], "--selection: 0 must be above 0"),
        (["--gpu", "3"], "no GPU 3: this machine has 0; use --device cpu"),
        (["--device", "tpu:0:0"], "unknown device 'tpu:0:0'; use auto, cpu or cuda:N"),
        (["--student", "ViT-B/61"], "unknown model 'ViT-B/61'; did you mean 'ViT-B/16'? "),
        (["--student", "no/such.pt"], "--student: there is no CLIP no/such.pt; give a file"),
        (["--context", "random"], "--context random is for --tune prompt"),
        (
            ["--tune", "prompt", "--templates", "imagenet80"],
            "--templates imagenet80 has no prompt to tune; ",
        ),
        (["--tune", "prompt", "--bn-prior", "16"], "--bn-prior is for --tune image-encoder or norm"),
        (
            ["--images-at-once", "2"],
            "--images-at-once is for a method that tunes the prompt or the normalisation layers; use 1",
        ),
        (
            ["--images-at-once", "2", "--tune", "norm", "--momentum"],
            "--momentum carries weights from sample to ",
        ),
        (["--class-chunk", "2"], "--class-chunk is for a method that tunes the prompt; use --tune prompt"),
        (
            ["--views-on-device", "--augment", "hard"],
            "--views-on-device makes crops only; use --augment crop",
        ),
        (["--select-precision", "bf16", "--method", "zeroshot"], "--select-precision bf16 spares a more precise "),
        (["--select-precision", "bf16", "--precision", "bf16"], "--select-precision bf16 spares a more precise "),
        (["--select-precision", "bf16"], "--select-precision bf16 leaves out views whose BatchNorm statistics count; "),
        (["--batchnorm", "published-norm"], "--batchnorm published-norm is for --tune norm"),
        (["--batchnorm", "frozen", "--bn-prior", "16"], "--bn-prior and --batchnorm frozen exclude each other"),
        (["--reward-weights", "1", "2"], "--reward-weights has 2 numbers for 1 reward models"),
        (["--method", "ppo"], f"--method: 'ppo' is not one of {', '.join(METHODS)}"),
        (["--step", "2"], "unrecognized arguments: --step 2; --help lists the flags"),
        (["--classnames", "no-names.txt"], "--classnames: there is no file of class names no-names.txt; it holds one "),
        (
            ["--prompt", "the essence of"],
            "demo-student knows a few words only, not all of 'the essence of apple.'; use a CLIP ",
        ),
    ],
)
def test_a_mistake_is_told_in_one_sentence(told, emoji, flags, message):
    assert told(*flags).startswith(message.replace("EMOJI", str(emoji)))


def test_a_zero_shot_context_and_templates_exclude_each_other(told):
    flags = ["--method", "zeroshot", "--tune", "prompt", "--context", "random", "--templates", "imagenet80"]
    assert told(*flags) == "--context random and --templates imagenet80 exclude each other"


def test_an_empty_class_folder_is_told(told, plant):
    data = plant("cat/1.jpg", "dog/", "owl/1.jpg")
    message = told("--data", data, "--datasets", "folder")
    assert message == f"class folder {data}/dog holds no image; fill it or delete it"


def test_a_text_file_named_jpg_is_told(told, plant):
    data = plant("cat/1.jpg", "dog/1.jpg", "owl/1.jpg")
    (data / "dog" / "1.jpg").write_text("no picture")
    message = told("--data", data, "--datasets", "folder")
    reason = "cannot be read as an image (cannot identify image file); mend it or pass --skip-bad-images"
    assert message == f"{data}/dog/1.jpg {reason}"


@pytest.mark.parametrize("flag", ["--student", "--reward"])
def test_a_checkpoint_that_is_no_clip_is_told(told, tmp_path, flag):
    file = tmp_path / "weights.pt"
    torch.save({"fc.weight": torch.ones(2, 2)}, file)
    assert told(flag, file).startswith(f"{file} is no CLIP checkpoint in OpenAI's layout; ")
    file.write_text("no weights")
    assert told(flag, file) == f"{file} is damaged or no weight file; download it again"


def test_a_coop_file_of_another_width_is_told(told, tmp_path):
    file = tmp_path / "coop.pth.tar"
    torch.save({"state_dict": {"ctx": torch.ones(4, 512)}}, file)
    message = told("--tune", "prompt", "--context", file)
    assert message.startswith(f"the CoOp context of {file} is 512 wide, the student's text tower 128; use the ")


def test_a_class_file_with_a_wrong_count_is_told(told, tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("cat\ndog\n")
    assert told("--classnames", file).startswith(f"{file} holds 2 class names but there are 6 class folders; ")


def test_a_class_that_an_embedded_model_does_not_know_is_told(told, plant):
    data = plant("cat/1.jpg", "dog/1.jpg", "velociraptor/1.jpg")
    for tune in ("prompt", "image-encoder", "norm"):
        message = told("--data", data, "--datasets", "folder", "--tune", tune)
        assert "velociraptor" in message and message.endswith("; use a CLIP with a full vocabulary")


def test_an_unknown_preset_key_is_told(told, tmp_path):
    file = tmp_path / "preset.yaml"
    file.write_text("sample_q: 3\n")
    assert told("--config", file) == f"{file}: unknown key 'sample_q'; did you mean 'sample_k'?"


@pytest.mark.parametrize("key", ["datasets", "reward"])
def test_a_preset_with_an_empty_list_is_told(tmp_path, key):
    file = tmp_path / "preset.yaml"
    file.write_text(f"{key}: []\n")
    with pytest.raises(UserError, match=f"{key} needs a value"):
        parse_config(ClassificationConfig, ["--config", str(file)], "", "")


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_an_output_that_cannot_be_written_is_told(told, tmp_path, place):
    (tmp_path / "file").write_text("")
    message = told("--output", tmp_path / place)
    assert message.startswith(f"cannot write to the run folder {tmp_path / place} (")


def test_a_student_that_is_not_finite_is_told(told, checkpoint, tmp_path, plant):
    weights = torch.load(checkpoint("vit"), weights_only=True)
    weights["visual.proj"][0, 0] = torch.nan
    torch.save(weights, tmp_path / "broken.pt")
    flags = ["--data", plant("cat/1.jpg", "dog/1.jpg"), "--datasets", "folder", "--student", tmp_path / "broken.pt"]
    assert "are not finite" in told(*flags, "--method", "zeroshot")


def test_one_class_is_no_choice(told, plant):
    data = plant("cat/1.jpg")
    assert told("--data", data, "--datasets", "folder", "--method", "dkd").startswith(
        f"{data} holds one class folder, cat"
    )


@pytest.mark.slow
def test_the_script_tells_a_truncated_jpeg_on_a_line_of_its_own(tmp_path, plant):
    data = plant("cat/1.jpg", "dog/1.jpg", "owl/1.jpg")
    bad = data / "owl" / "1.jpg"
    bad.write_bytes(bad.read_bytes()[:-40])
    flags = ["--student", "demo-student", "--reward", "demo-reward", "--output", "run", *TINY_RUN]
    done = run_script("classification/main.py", "--data", data, "--datasets", "folder", *flags, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {bad} cannot be read as an image (image file is truncated")
    assert last.endswith("; mend it or pass --skip-bad-images")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--method", "tpt", "--entropy-weight", "1"], "--entropy-weight"),
        (["--divide-by-std", "--baseline", "none"], "--divide-by-std"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(flags, said):
    with pytest.raises(UserError, match=said):
        main(["--data", ".", *flags])
