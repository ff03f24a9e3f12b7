"""Devices, their precision, and deterministic kernels: what the settings ask for, and what there is."""

import dataclasses
import os
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from classification.config import ClassificationConfig
from rlcf.errors import UserError
from rlcf.failures import sentence_of
from rlcf.run.config import make_config, parse_config, to_yaml
from rlcf.run.device import resolve_device, resolve_precision
from rlcf.run.identity import fixed_settings
from rlcf.run.settings import Config as SharedConfig


@dataclasses.dataclass
class Config(SharedConfig):
    """The shared settings, of a task with one method."""

    methods: ClassVar = {
        "rlcf": SimpleNamespace(told="", adapts=True, asks_rewards=True, needs_logits=False, settings=())
    }


def parse(*argv):
    return parse_config(Config, list(argv), "A task.", "")


@pytest.fixture
def gpus(monkeypatch):
    def have(count):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)

    return have


def test_gpu_is_short_for_a_cuda_device(gpus):
    gpus(4)
    assert resolve_device(parse("--gpu", "3")) == torch.device("cuda:3")
    assert resolve_device(parse("--gpu", "cpu")) == torch.device("cpu")


@pytest.mark.parametrize(("count", "number"), [(0, 3), (0, 0), (2, 2)])
def test_a_gpu_that_is_not_there_is_named_with_the_count(gpus, count, number):
    gpus(count)
    with pytest.raises(UserError, match=f"no GPU {number}: this machine has {count}; use --device cpu"):
        resolve_device(parse("--gpu", str(number)))


@pytest.mark.parametrize("name", ["gpu0", "cuda:first", "cuda:-1", "meta", "mps"])
def test_a_device_that_is_neither_cpu_nor_cuda_is_named(gpus, name):
    gpus(1)
    with pytest.raises(UserError, match=f"'{name}'; use auto, cpu or cuda:N"):
        resolve_device(parse("--device", name))


def test_auto_is_the_gpu_of_this_process_or_the_cpu(gpus):
    gpus(0)
    assert resolve_device(Config(), local_rank=1) == torch.device("cpu")
    gpus(2)
    assert resolve_device(Config(), local_rank=1) == torch.device("cuda:1")


def test_cuda_without_a_number_is_the_gpu_of_this_process(gpus):
    gpus(2)
    assert resolve_device(Config(device="cuda"), local_rank=1) == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_more_processes_than_gpus_are_told(gpus, name):
    gpus(2)
    with pytest.raises(UserError, match=r"no GPU 2: this machine has 2; .* start at most 2 processes"):
        resolve_device(Config(device=name), local_rank=2)


def test_auto_precision_is_fp16_on_cuda_and_fp32_on_the_cpu():
    assert resolve_precision(Config(), torch.device("cuda")) == "fp16"
    assert resolve_precision(Config(), torch.device("cpu")) == "fp32"
    assert resolve_precision(Config(precision="bf16"), torch.device("cpu")) == "bf16"


@pytest.fixture
def clock(monkeypatch):
    """Sets how many seconds a product takes on the CPU in bf16, where it takes one in fp32; counts what was timed."""

    def start(in_bf16):
        now = [0.0]

        def process_time():
            now.append(now[-1] + (in_bf16 if torch.is_autocast_enabled("cpu") else 1.0))
            return now[-1]

        monkeypatch.setattr("rlcf.run.device.time", SimpleNamespace(process_time=process_time))
        return now

    return start


def test_bf16_that_is_slower_on_the_cpu_is_said(clock, capsys):
    for seconds in (3.0, 0.5):
        clock(seconds)
        assert resolve_precision(Config(precision="bf16"), torch.device("cpu")) == "bf16"
    clock(2.0)
    resolve_precision(ClassificationConfig(select_precision="bf16"), torch.device("cpu"))
    assert capsys.readouterr().err.splitlines() == [
        "--precision bf16: a product took 3.0 times fp32's processor time; on this CPU leave it out",
        "--select-precision bf16: a product took 2.0 times fp32's processor time; on this CPU leave it out",
    ]


def test_only_bf16_on_the_cpu_is_measured(clock, capsys):
    now = clock(3.0)
    resolve_precision(Config(), torch.device("cpu"))
    resolve_precision(Config(precision="bf16"), torch.device("cuda"))
    assert len(now) == 1 and not capsys.readouterr().err


# ---- deterministic kernels ----


@pytest.fixture
def kernels(monkeypatch):
    """Returns CUBLAS_WORKSPACE_CONFIG, whether torch uses deterministic kernels alone, and cuDNN's benchmark flag."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    def told():
        workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
        return workspace, torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark

    yield told
    torch.use_deterministic_algorithms(False)


def test_deterministic_makes_a_gpu_use_deterministic_kernels_alone(gpus, kernels):
    gpus(1)
    resolve_device(parse("--device", "cuda"))
    assert kernels() == (None, False, True)
    assert resolve_device(parse("--device", "cuda", "--deterministic")) == torch.device("cuda", 0)
    assert kernels() == (":4096:8", True, False)


def test_deterministic_keeps_a_workspace_that_is_deterministic_and_replaces_another(gpus, kernels, monkeypatch):
    gpus(1)
    for before, kept in ((":16:8", ":16:8"), (":0:0", ":4096:8")):
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", before)
        resolve_device(parse("--deterministic"))
        assert kernels()[0] == kept


def test_deterministic_changes_nothing_on_the_cpu_and_stands_in_the_settings(kernels):
    config = parse("--deterministic", "--device", "cpu")
    assert resolve_device(config) == torch.device("cpu") and kernels() == (None, False, True)
    assert "deterministic: true" in to_yaml(config) and fixed_settings(config)["deterministic"] is True
    assert make_config(Config, {"deterministic": True}).deterministic


def test_an_operation_without_a_deterministic_kernel_is_told():
    said = "cumsum_cuda_kernel does not have a deterministic implementation, but you set 'torch.use_deterministic_...'"
    assert sentence_of(RuntimeError(said)) == (
        "cumsum_cuda_kernel has no deterministic kernel on this device; leave out --deterministic"
    )
