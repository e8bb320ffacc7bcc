import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from leanconv.measure import count
from leanconv.nn import TiedConv2d, TiedGlobalContext, TiedLinear


def by_name(cost):
    return {layer.name: layer for layer in cost.layers}


def assert_layers_add_up(cost):
    for part in ("params", "macs", "activation_bytes"):
        assert sum(getattr(layer, part) for layer in cost.layers) == getattr(cost, part)


def test_resnet50_costs_what_the_papers_say():
    model = timm.create_model("resnet50")
    cost = count(model, (1, 3, 224, 224))
    assert cost.params == 25_557_032
    assert cost.macs == 4_089_184_256
    assert cost.buffers == sum(buffer.numel() for buffer in model.buffers())
    assert_layers_add_up(cost)
    stem = by_name(cost)["conv1"]
    assert (stem.kind, stem.output_shape) == ("Conv2d", (1, 64, 112, 112))
    assert stem.macs == 7 * 7 * 3 * 64 * 112 * 112
    assert stem.activation_bytes == 64 * 112 * 112 * 4
    assert "act1" not in by_name(cost)  # computes in place


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize(("blocks", "groups", "stride"), [(1, 1, 1), (2, 1, 1), (4, 1, 2), (2, 2, 1)])
def test_a_tied_convolution_costs_its_share_of_the_dense_one(channels_last, kernel_size, blocks, groups, stride):
    shape = {"kernel_size": kernel_size, "stride": stride, "padding": kernel_size // 2, "bias": False}
    dense = count(nn.Conv2d(16, 32, **shape), (2, 16, 9, 9), channels_last=channels_last)
    layer = nn.Sequential(TiedConv2d(16, 32, **shape, groups=groups, blocks=blocks))
    tied = count(layer, (2, 16, 9, 9), channels_last=channels_last)
    assert tied.macs * blocks * groups == dense.macs
    assert tied.params * blocks**2 * groups == dense.params
    assert tied.activation_bytes == dense.activation_bytes
    [row] = tied.layers
    assert (row.name, row.kind) == ("0", "TiedConv2d")


def test_tied_linear_and_global_context_are_counted_by_hand():
    linear = count(nn.Sequential(nn.Flatten(), TiedLinear(12, 8, blocks=4)), (5, 12, 1, 1))
    assert linear.macs == 5 * 4 * 3 * 2
    assert linear.params == 3 * 2 + 2
    context = count(TiedGlobalContext(16, blocks=2), (3, 16, 5, 5))
    mask, pooling, transform = 16 * 25, 16 * 25, 2 * (16 * 4 // 2)
    assert context.macs == 3 * (mask + pooling + transform)
    assert by_name(context)[""].macs == 3 * pooling
    assert_layers_add_up(context)


class Reuse(nn.Module):
    """A convolution called twice, one reached by two names, a functional one, and one that never runs."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.alias = self.twice
        self.kernel = nn.Parameter(torch.randn(4, 4, 1, 1))
        self.unused = nn.Conv2d(4, 2, 1)

    def forward(self, input):
        return F.conv2d(self.alias(F.relu(self.twice(input))), self.kernel)


def test_shared_functional_and_unused_parts():
    cost = count(Reuse(), (1, 4, 8, 8))
    layers = by_name(cost)
    assert set(layers) == {"", "twice", "unused"}
    assert layers["twice"].macs == 2 * 4 * 4 * 9 * 64
    assert layers["twice"].params == 4 * 4 * 9 + 4
    assert layers["twice"].activation_bytes == 2 * 4 * 64 * 4
    assert layers[""].macs == 4 * 4 * 64
    assert layers[""].params == 16
    assert (layers["unused"].params, layers["unused"].macs, layers["unused"].output_shape) == (10, 0, None)
    assert cost.params == sum(parameter.numel() for parameter in Reuse().parameters())
    assert_layers_add_up(cost)


def test_activations_are_halved_by_half_precision_and_multiplied_by_the_batch():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten())
    full = count(model, (1, 3, 10, 10))
    assert full.activation_bytes == 2 * 8 * 8 * 8 * 4
    half = count(model, (6, 3, 10, 10), dtype="bfloat16")
    assert half.activation_bytes == 6 * full.activation_bytes // 2
    assert half.macs == 6 * full.macs


def test_training_keeps_more_memory_than_inference():
    model = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(6)))
    maps = 8 * 16 * 16 * 4
    assert count(model, (1, 8, 16, 16)).peak_bytes == 2 * maps
    assert count(model, (1, 8, 16, 16), training=True).peak_bytes >= 6 * maps


@pytest.mark.parametrize("training", [False, True])
def test_the_model_and_the_random_numbers_stay_as_they_are(training):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 4, 1))
    model.train()
    model[3].eval()
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    count(model, (2, 3, 8, 8), dtype="float64", channels_last=True, training=training)
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in model] == [True, True, True, False]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.dtype == before[name].dtype
        assert value.stride() == before[name].stride()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Token(nn.Module):
    """Gives a module a view of a parameter, as vision transformers do with their class token."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 2, 4, 4))
        self.mix = nn.Conv2d(2, 3, 1)

    def forward(self, input):
        return self.mix(self.token.expand(len(input), -1, -1, -1)) + input.mean()


@pytest.mark.parametrize("training", [False, True])
def test_a_view_of_a_parameter_may_go_into_a_layer(training):
    cost = count(Token(), (5, 1, 2, 2), training=training)
    assert cost.macs == 5 * 4 * 4 * 2 * 3


def test_a_network_that_asserts_the_size_of_its_images_says_so():
    with pytest.raises(ValueError, match=r"VisionTransformer can't run on an input of shape \(1, 3, 32, 32\): .*224"):
        count(timm.create_model("vit_tiny_patch16_224", depth=1), (1, 3, 32, 32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (1, 3, 8)}, r"four positive whole numbers \(N, C, H, W\), got \(1, 3, 8\)"),
        ({"shape": (1, 3, 8, 0)}, r"got \(1, 3, 8, 0\)"),
        ({"shape": (1, 3, 8, 8.0)}, r"got \(1, 3, 8, 8\.0\)"),
        ({"dtype": "float23"}, "unknown dtype 'float23': did you mean 'float32'"),
        ({"dtype": torch.int8}, "unknown dtype 'int8'"),
        ({"device": "gpu"}, "device 'gpu' can't be used here"),
        ({"device": "cuda:99"}, "device 'cuda:99' can't be used here"),
        ({"shape": (1, 4, 8, 8)}, r"Conv2d can't run on an input of shape \(1, 4, 8, 8\): .* 3 channels, but got 4"),
    ],
)
def test_what_can_not_be_measured_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        count(nn.Conv2d(3, 4, 3), **{"shape": (1, 3, 8, 8), **arguments})
