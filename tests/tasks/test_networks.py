import dataclasses

import pytest
import torch

from leanconv.nn import TiedConv2d
from leanconv.tasks import build_network, open_data, save_model
from leanconv.tasks.checkpoint import configuration


@pytest.fixture
def data(quick):
    return open_data(quick)


def test_the_operator_takes_its_layers(quick, data):
    network = build_network(dataclasses.replace(quick, operator="tied:blocks=4"), data)
    assert [name for name, module in network.named_modules() if isinstance(module, TiedConv2d)] == ["body.0"]
    assert network(data.train.batch([0, 1])[0]).shape == (2, 6)
    assert network.training


def test_new_weights_are_as_widely_spread_as_the_dense_layers(quick, data):
    torch.manual_seed(0)
    dense = build_network(quick, data)
    torch.manual_seed(0)
    tied = build_network(dataclasses.replace(quick, operator="tied:blocks=4"), data)
    weight, width = dense.body[0].weight, dense.body[0].weight.shape[1] // 4
    blocks = zip(weight.chunk(4), range(4), strict=True)
    total = sum(rows[:, width * block : width * (block + 1)] for rows, block in blocks)
    torch.testing.assert_close(tied.body[0].weight, total)


def test_an_operator_that_takes_nothing_is_refused(quick, data):
    with pytest.raises(ValueError, match="takes none of the model's"):
        build_network(dataclasses.replace(quick, operator="tied:blocks=3"), data)
    with pytest.raises(ValueError, match="takes none of the model's"):
        build_network(dataclasses.replace(quick, operator="tied", where="layer9*"), data)


def test_an_unknown_model_names_the_nearest(quick, data):
    with pytest.raises(ValueError, match=r"unknown model 'cifar_resnet21': did you mean .*'cifar_resnet20'"):
        build_network(dataclasses.replace(quick, model="cifar_resnet21"), data)


def test_dense_weights_are_carried_over_into_the_operator(quick, data, tmp_path):
    dense = build_network(quick, data)
    save_model(tmp_path / "a.safetensors", dense, configuration(quick, data))
    start = dataclasses.replace(quick, weights=tmp_path / "a.safetensors", operator="tied:blocks=2")
    tied = build_network(start, data)
    assert torch.equal(tied.stem[0].weight, dense.stem[0].weight)
    assert torch.equal(tied.head[3].weight, dense.head[3].weight)
    weight = dense.body[0].weight
    torch.testing.assert_close(tied.body[0].conv.weight, (weight[:8, :4] + weight[8:, 4:]) / 2)


def test_weights_of_the_same_operator_are_loaded(quick, data, tmp_path):
    tied = dataclasses.replace(quick, operator="tied:blocks=2")
    network = build_network(tied, data)
    save_model(tmp_path / "a.safetensors", network, configuration(tied, data))
    again = build_network(dataclasses.replace(tied, weights=tmp_path / "a.safetensors"), data)
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    with pytest.raises(ValueError, match=r"the dense network or of 'tied:blocks=4', got .* of 'tied:blocks=2'"):
        build_network(dataclasses.replace(quick, operator="tied:blocks=4", weights=tmp_path / "a.safetensors"), data)
