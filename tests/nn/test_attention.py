"""Published parameter counts of the attention modules, and how they start."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leanconv.nn import GlobalContext, SqueezeExcite, TiedGlobalContext, TiedSE

RESNET50_BLOCKS = {256: 3, 512: 4, 1024: 6, 2048: 3}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("blocks", "expected"), [(1, 2_530_992), (2, 636_760), (4, 161_196), (8, 41_302), (16, 10_926)]
)
def test_tied_se_of_resnet50(blocks: int, expected: int) -> None:
    """TBC paper, Table 3: 2.53M parameters of SE against 0.04M of TiedSE at 8 blocks."""
    assert sum(count * parameters(TiedSE(width, blocks=blocks)) for width, count in RESNET50_BLOCKS.items()) == expected


def test_tied_se_has_64_times_fewer_weights_at_8_blocks() -> None:
    def weights(module: nn.Module) -> int:
        return sum(parameter.numel() for name, parameter in module.named_parameters() if name.endswith("weight"))

    assert weights(SqueezeExcite(2048)) == 64 * weights(TiedSE(2048, blocks=8))


@pytest.mark.parametrize(("blocks", "expected"), [(1, 10_000_909), (2, 2_520_845), (4, 648_589)])
def test_tied_global_context_of_resnet50(blocks: int, expected: int) -> None:
    """TBC paper: GCB 10M against TiedGCB 2.5M, in the last three stages at ratio 1/4."""
    widths = {width: count for width, count in RESNET50_BLOCKS.items() if width > 256}
    total = sum(count * parameters(TiedGlobalContext(width, blocks=blocks)) for width, count in widths.items())
    assert total == expected


def test_one_block_is_the_untied_module() -> None:
    input = torch.randn(2, 32, 4, 4)
    pairs = (TiedSE(32, blocks=1), SqueezeExcite(32)), (TiedGlobalContext(32, blocks=1), GlobalContext(32))
    for tied, untied in pairs:
        untied.load_state_dict(tied.state_dict())
        assert torch.equal(tied(input), untied(input))


def test_global_context_changes_nothing_at_first() -> None:
    input = torch.randn(2, 32, 4, 4)
    assert torch.equal(TiedGlobalContext(32)(input), input)
