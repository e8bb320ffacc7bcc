import pytest
import torch
from torch import nn

from leanconv.tasks import Recipe, open_data
from leanconv.tasks.trial import check_runs


class Failing(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, images):
        torch.rand(3)
        raise self.error


@pytest.fixture(scope="module")
def data():
    return open_data(Recipe(limit=20))


@pytest.mark.parametrize(("error", "reason"), [
    (RuntimeError("too small\nmore"), "too small"), (AssertionError(), "AssertionError"), (ValueError("odd"), "odd")
])
def test_what_a_network_says_against_the_images_is_told(data, error, reason):
    with pytest.raises(ValueError, match=rf"^model 'it' can't run on images of 1×16×16: {reason}$"):
        check_runs(Failing(error), "it", data)


def test_a_network_is_left_as_it_was(data):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU()).train()
    network[3].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    check_runs(network, "it", data)
    with pytest.raises(ValueError, match="can't run"):
        check_runs(Failing(RuntimeError("no")), "it", data)
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in network] == [True, True, True, False]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
