import pytest
import torch


@pytest.fixture(autouse=True)
def threads():
    """A benchmark sets torch's threads for its process; the tests that follow have their own."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
