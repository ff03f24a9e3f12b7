"""The run folders of retrieval, captioning and methods with caches: every file damaged, in every way."""

import pytest
import torch

from tests.damage import survive
from tests.fuzz.runs import RUNS, left


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("retrieval-runs", "finished"),
        ("momentum-retrieval-runs", "stopped"),
        ("captioning-runs", "stopped"),
        ("captioning-runs", "finished"),
        ("online-runs", "stopped"),
    ],
)
def test_every_damage_of_a_run_folder_is_mended_or_told(name, seed, tmp_path):
    torch.set_num_threads(1)
    runs = next(runs for runs in RUNS if runs.name == name)
    runs.make(tmp_path)

    def again(folder):
        runs.run(tmp_path, folder, [])
        return folder

    outcomes = survive(tmp_path / seed, tmp_path / f"foreign {seed}", again, left, tmp_path, share=1000)
    assert outcomes["config.yaml", "empty"] == "same" and "remove it" in outcomes["config.yaml", "a pipe"]
    assert {"same"} < set(outcomes.values())
