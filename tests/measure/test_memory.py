import gc

import pytest
import torch
from torch import nn

from leanconv.measure import peak_memory
from leanconv.measure.memory import LiveMemory

KILO = 250  # float32 numbers in 1000 bytes

devices = pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))],
)


@devices
def test_a_chain_that_drops_each_result_holds_two_at_once(device):
    start = torch.ones(KILO, device=device)

    def chain():
        value = start
        for _ in range(5):
            value = value * 2
        return value

    assert peak_memory(chain) == 2000


@devices
def test_results_that_are_kept_add_up(device):
    start = torch.ones(KILO, device=device)
    assert peak_memory(lambda: [start * factor for factor in range(5)]) == 5000


@devices
def test_views_and_in_place_operations_cost_nothing(device):
    start = torch.ones(KILO, device=device)

    def views():
        made = start + 1
        return made.view(10, 25).t()[2:].relu_(), start.add_(1), start[5:], start.detach()

    assert peak_memory(views) == 1000


def test_what_a_view_keeps_alive_counts_as_a_whole():
    start = torch.ones(KILO)

    def keep_one_number():
        one = (start + 1)[:1]
        other = start * 2
        return one, other

    assert peak_memory(keep_one_number) == 2000


def test_an_input_that_is_freed_inside_and_its_address_do_not_confuse_the_count():
    holder = [torch.ones(KILO)]

    def consume():
        doubled = holder.pop() * 2
        return doubled * 2

    assert peak_memory(consume) == 2000


@devices
def test_backward_counts_what_is_saved_and_the_gradients(device):
    weight = torch.ones(KILO, device=device, requires_grad=True)

    def squares():
        hidden = weight * weight  # 1000, saved by the next product
        loss = (hidden * hidden).sum()  # 1000 more, freed once summed, and 4 for the sum
        loss.backward()

    # The widest moment is inside backward: hidden, the sum, the 1 that starts the backward pass, and three gradients.
    assert peak_memory(squares) == 1000 + 4 + 4 + 3000
    assert weight.grad is not None


def test_a_deeper_network_needs_more_to_train_but_not_to_run():
    def network(depth):
        return nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(depth)))

    input = torch.randn(1, 4, 16, 16)
    maps = 4 * 16 * 16 * 4

    def run(model):
        with torch.no_grad():
            model(input)

    def train(model):
        model(input).sum().backward()

    shallow, deep = network(3), network(8)
    assert peak_memory(lambda: run(shallow)) == peak_memory(lambda: run(deep)) == 2 * maps
    assert peak_memory(lambda: train(deep)) - peak_memory(lambda: train(shallow)) >= 5 * maps


def test_bytes_that_are_alive_fall_back_to_zero():
    with LiveMemory() as memory:
        made = torch.ones(KILO) + 1
        assert memory.current == 1000
        del made
        gc.collect()
        assert memory.current == 0
    assert memory.peak == 2000
