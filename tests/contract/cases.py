"""Every layer of the library, case by case. A new layer adds a file of cases beside this one."""

from __future__ import annotations

import torch
from contract import asymmetric_cases, attention_cases, dynamic_cases, ghost_cases, split_cases, tied_cases
from torch import Tensor, nn

CASES = [
    *tied_cases.CASES, *attention_cases.CASES, *dynamic_cases.CASES, *asymmetric_cases.CASES, *ghost_cases.CASES,
    *split_cases.CASES,
]


def gradients_of_one_process(name: str, rank: int, world: int) -> list[Tensor]:
    """The mean gradients of all processes' shares of a batch, computed in one process or by DDP over `world`."""
    case = next(case for case in CASES if case.name == name)
    layer = case.layer()
    shares = case.input(2 * world, *case.shape[1:]).chunk(world)
    if world > 1 and torch.distributed.is_initialized():
        parallel = nn.parallel.DistributedDataParallel(layer)
        parallel(shares[rank]).square().mean().backward()
    else:
        torch.stack([layer(share).square().mean() for share in shares]).mean().backward()
    return [parameter.grad for parameter in layer.parameters()]


def distributed_worker(rank: int, world: int, rendezvous: str, names: list[str], folder: str) -> None:
    """What each of the processes of the DDP test runs."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    gradients = {name: gradients_of_one_process(name, rank, world) for name in names}
    torch.save(gradients, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
