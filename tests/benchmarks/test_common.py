"""Flags, models, the table, and what is measured of two callables."""

import copy
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from benchmarks import reference, views
from benchmarks.common import Row, build, length_first, parse, picture, report, row, table, uncached_autocast
from benchmarks.measure import CLEAR, GemmRate, Measurement, count_flops, largest_difference, measure
from rlcf.adapt.views import Views
from rlcf.clip.transformer import add_linear
from rlcf.errors import UserError
from rlcf.linear import linear
from tests.tools import CPU, run_script


@pytest.fixture
def options(tmp_path):
    """Flags of a benchmark that writes tmp_path/rows.json."""
    return lambda *flags: parse("What it measures.", ["--output", str(tmp_path / "rows.json"), *flags], "rows")


def test_flags_have_defaults_and_give_torch_its_threads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = parse("What it measures.", [], "encoder", repeats=5, further={"--only": {"choices": ["a", "b"]}})
    assert (options.size, options.repeats, options.threads, options.only) == ("tiny", 5, 2, None)
    assert options.device == CPU
    assert options.output == Path("output/benchmarks/encoder.json")
    parse("What it measures.", ["--threads", "1"], "encoder")
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--size", "huge"], "--size: invalid choice: 'huge'"),
        (["--repeats", "0"], "--repeats: '0' is not a whole number of at least 1"),
        (["--threads", "two"], "--threads: 'two' is not"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--device", "cuda:99"], "no GPU 99"),
        (["--rounds", "3"], "--rounds"),
    ],
)
def test_a_mistake_in_a_flag_is_named(options, flags, words):
    with pytest.raises(UserError, match=words):
        options(*flags)


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_measured(options, tmp_path):
    (tmp_path / "file").touch()
    for bad in (tmp_path, tmp_path / "file" / "rows.json"):
        with pytest.raises(UserError, match="choose another --output"):
            options("--output", str(bad))


def test_a_mistake_ends_a_script_with_one_line_and_exit_code_2(tmp_path):
    done = run_script("benchmarks/views.py", "--repeats", "none", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_built_models_are_the_same_at_every_call_and_say_nothing(capfd, caplog):
    state = torch.get_rng_state()
    models, again = build("tiny", CPU), build("tiny", CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert not caplog.records and capfd.readouterr() == ("", "")
    for one, two in ((models.student, again.student), (models.reward, again.reward)):
        assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
        assert one.size == (32, 32)
        assert one.logit_scale.item() == pytest.approx(100)
        assert one.tokenize(["a photo of a tench."]).shape == (1, 77)
    assert not torch.equal(models.student.model.visual.proj, models.reward.model.visual.proj)


def test_adaptation_moves_the_tiny_models_logits():
    models = build("tiny", CPU)
    clips = (models.student, models.reward)
    pixels = Views(models.student.centre_view, models.student.size, count=16)(picture(), 0)
    prompts = [f"a photo of a {name}." for name in open_clip.IMAGENET_CLASSNAMES[:20]]
    classes = [clip.encode_text(prompts) for clip in clips]
    prepared = [clip.prepare(pixels) for clip in clips]
    hyper = {"steps": 2, "lr": 1e-5, "weight_decay": 5e-4, "eps": 1e-8, "keep": 3, "k": 3}
    start = copy.deepcopy(clips[0].model.state_dict())
    before, after = reference.adapt_image_encoder(*(clip.model for clip in clips), *classes, *prepared, start, **hyper)
    assert (after - before).abs().max() > 0.1


def test_a_picture_is_the_same_at_every_call_and_its_parts_differ():
    pixels = np.asarray(picture())
    assert pixels.shape == (375, 500, 3)
    assert np.array_equal(pixels, np.asarray(picture()))
    assert not np.array_equal(pixels, np.asarray(picture(seed=1)))
    quarters = [part.mean() for half in np.split(pixels[:374], 2) for part in np.split(half, 2, axis=1)]
    assert np.ptp(quarters) > 5


def test_the_two_are_called_in_turn_after_the_warm_up():
    called = []

    def call(name, *values):
        called.append(name)
        return tuple(torch.tensor([value]) for value in values)

    measured = measure(lambda: call("slow", 1.0, 3.0), lambda: call("fast", 1.0, 2.5), 2, CPU)
    assert called == ["slow", "fast", "fast", "slow", "fast", "slow", "fast"]
    assert len(measured.ratios) == 2
    assert (measured.difference, measured.moved) == (0.5, 2.0)

    called.clear()
    measured = measure(lambda: call("slow"), lambda: call("fast"), None, CPU, compare=False)
    assert len(measured.ratios) == 5  # three where a pair takes a minute

    called.clear()
    measured = measure(lambda: call("slow"), lambda: call("fast"), 1, CPU, warm=False, compare=False)
    assert called == ["fast", "fast", "slow", "fast"]
    assert measured.reference_flops == 0 and measured.difference is None


@pytest.mark.skipif(not CLEAR.exists(), reason="the system does not tell")
def test_memory_is_the_peak_of_each_callable():
    def hold(megabytes):
        return torch.ones(megabytes, 2**18)[0, :1].clone()

    measured = measure(lambda: hold(300), lambda: hold(100), 2, CPU)
    assert measured.reference_mb - measured.fast_mb == pytest.approx(200, abs=40)


@pytest.mark.skipif(not CLEAR.exists(), reason="the system does not tell")
def test_what_the_fast_path_keeps_does_not_count_against_the_reference():
    kept = []

    def fast():
        kept[:] = [torch.ones(300, 2**18)]
        return torch.ones(1)

    measured = measure(lambda: torch.ones(1), fast, 1, CPU)
    assert measured.fast_mb - measured.reference_mb > 250


def test_flops_of_attention_are_counted_with_and_without_a_graph():
    n, length, width, heads = 3, 7, 32, 4
    attention = torch.nn.MultiheadAttention(width, heads, batch_first=True).eval()
    x = torch.randn(n, length, width)
    expected = 2 * n * length * width * 4 * width + 2 * 2 * n * length * length * width

    def forward():
        return attention(x, x, x, need_weights=False)[0]

    assert count_flops(forward) == expected
    assert count_flops(torch.no_grad()(forward)) == expected
    # Backward: two products for each of the forward's but the inputs', whose gradient nobody asks for; attention is
    # computed again.
    attended = 2 * n * length * length * width
    inputs = 2 * n * length * width * 3 * width
    assert count_flops(lambda: forward().sum().backward()) == expected + 2 * expected + attended - inputs


def test_flops_of_the_blocks_fast_paths_are_those_of_the_products_that_they_stand_for():
    layer, x = torch.nn.Linear(512, 1024), torch.randn(2, 3, 512)
    back, hidden = torch.nn.Linear(1024, 512), torch.randn(2, 3, 1024)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert count_flops(lambda: linear(x, layer.weight, layer.bias)) == 2 * 6 * 512 * 1024
            assert count_flops(lambda: add_linear(x, hidden, back)) == 2 * 6 * 512 * 1024


def test_flops_of_a_graph_that_is_kept_are_those_of_its_backward_pass():
    weight, x = torch.randn(8, 16, requires_grad=True), torch.randn(4, 8)
    kept = (x @ weight).sum()
    assert count_flops(lambda: kept.backward(retain_graph=True)) == 2 * 4 * 8 * 16


def test_largest_difference_is_over_all_tensors():
    first = (torch.tensor([1.0, 2.0]), torch.tensor([3.0]))
    assert largest_difference(first, (torch.tensor([1.0, 1.5]), torch.tensor([5.0]))) == 2.0


def test_a_row_tells_medians_and_fractions_of_the_ceiling():
    rates = [2.0, 2.0, 3.0]  # GFLOP/s during each call
    measured = Measurement([4.0, 6.0, 9.0], [2.0, 2.0, 1.0], rates, rates, fast_flops=3 * 10**9)
    line = row("encoder", measured, required=0.9)
    assert (line.reference_seconds, line.fast_seconds) == (6.0, 2.0)
    assert (line.ratio_min, line.ratio_median, line.ratio_max) == (2.0, 3.0, 9.0)
    assert (line.ceiling_seconds, line.reference_fraction, line.fast_fraction) == (1.5, 0.25, 0.75)
    assert (line.repeats, line.required) == (3, 0.9)


def test_the_rate_of_matrix_products_is_that_of_the_time_of_the_call(monkeypatch):
    """Products between the call's operations are timed, and their seconds are none of the call's."""
    monkeypatch.setattr(GemmRate, "EVERY", 0.0)
    with GemmRate(CPU, torch.float32) as during:
        x = torch.ones(4, requires_grad=True)
        (3 * x).sum().backward()
    assert torch.equal(x.grad, torch.full((4,), 3.0))
    alone = GemmRate(CPU, torch.float32)
    alone.short = True
    with alone:
        torch.ones(4).sum()
    assert alone.between == 0 < alone.gflops
    monkeypatch.setattr(GemmRate, "EVERY", 1e9)
    with GemmRate(CPU, torch.float32) as around:
        torch.ones(4).sum()
    assert during.between > 0 == around.between
    assert 0 < during.gflops < 1e5 and 0 < around.gflops < 1e5


def test_the_table_has_fixed_width_and_leaves_out_what_was_not_measured():
    whole = Row("encoder", 60.8, 18.6, 3.1, 3.27, 3.4, 3, 6e-6, 0.5, 13800.0, 7100.0, 128.0, 16.7, 0.28, 0.9, 0.85)
    part = Row("views", 0.14, 0.08, 1.5, 1.6, 1.7, 20)
    head, first, second = table([whole, part]).splitlines()
    assert len(head) == len(first) == len(second)
    assert first.split("  ")[0] == "encoder"
    for text in ("60.800 -> 18.600", "3.27 (3.10 - 3.40)", "6.0e-06", "13800 -> 7100", " 128 ", "28% -> 90%", "85%"):
        assert text in first
    assert "?" not in second and "None" not in second
    assert head.startswith("work ") and second.endswith(" 20")


def test_a_report_prints_the_table_and_writes_the_rows(options, capsys):
    flags = options("--threads", "1")
    line = Row("encoder", 6.0, 2.0, 2.5, 3.0, 3.5, 3)
    report(flags, [line])
    printed = capsys.readouterr().out
    assert "1 threads, size tiny, fp32" in printed and table([line]) in printed
    written = json.loads(flags.output.read_text())
    assert [Row(**entry) for entry in written["rows"]] == [line]
    assert (written["size"], written["threads"]) == ("tiny", 1)
    assert written["device"] and written["versions"]["torch"]
    assert all(1 < rate < 1e5 for rate in written["square_gflops"].values())
    assert "square matrices in fp32, GFLOP/s: torch.mm " in printed


def test_the_views_benchmark_measures_both_rows(tmp_path, capsys):
    views.main(["--repeats", "1", "--output", str(tmp_path / "new" / "views.json")])
    written = json.loads((tmp_path / "new" / "views.json").read_text())
    assert len(written["rows"]) == 2
    assert all(entry["fast_seconds"] > 0 for entry in written["rows"])
    assert all(entry["gflops"] > 1 for entry in written["rows"])
    assert "normalised floats" in capsys.readouterr().out


def test_prepared_views_are_what_the_torchvision_pipeline_makes(tmp_path):
    file = tmp_path / "picture.png"
    picture().save(file)
    clip = build("tiny", CPU).student
    plain = reference.make_views(file, 1, 32, clip.preprocess["mean"], clip.preprocess["std"])
    ours = clip.prepare(Views(clip.centre_view, clip.size, count=1)(picture(), 0))
    assert F.l1_loss(plain, ours) < 1e-6


def test_a_loop_under_autocast_computes_with_the_weights_that_a_step_has_changed():
    layer, x = torch.nn.Linear(4, 4), torch.ones(1, 4)
    with uncached_autocast(build("tiny", CPU, "bf16").student):
        first = layer(x)
        with torch.no_grad():
            layer.weight.add_(1.0)
        second = layer(x)
    assert first.dtype == torch.bfloat16 and not torch.equal(first, second)
    with uncached_autocast(build("tiny", CPU).student):
        assert layer(x).dtype == torch.float32


def test_a_loop_has_its_tensors_length_first_and_the_same_features():
    clips, shapes = build("tiny", CPU), []
    model = clips.student.model
    pixels, tokens = torch.rand(6, 3, 32, 32), clips.student.tokenize(["a photo of a dog", "a cat"])
    first = model.visual.transformer.resblocks[0]
    first.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))

    def features():
        with torch.no_grad():
            return model.encode_image(pixels), model.encode_text(tokens)

    before, published = features(), clips.as_published(features)()
    with pytest.raises(KeyError), length_first(clips.student):
        raise KeyError
    torch.testing.assert_close(published, before)
    torch.testing.assert_close(features(), before, rtol=0, atol=0)
    assert shapes == [(6, 17, 64), (17, 6, 64), (6, 17, 64)]
