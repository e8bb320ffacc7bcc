"""The hardware that a recipe asks for."""

from __future__ import annotations

import torch

from leanconv.tasks.training_recipe import TrainingRecipe


def chosen_accelerator(recipe: TrainingRecipe) -> str:
    """Where to train: "cuda" or "cpu".

    Raises:
        ValueError: the recipe asks for GPUs that aren't there.
    """
    present = torch.cuda.device_count()
    accelerator = "cuda" if recipe.accelerator == "gpu" or (recipe.accelerator == "auto" and present) else "cpu"
    if accelerator == "cuda" and recipe.devices > present:
        asked = f"accelerator {recipe.accelerator!r} with devices {recipe.devices}"
        raise ValueError(f"{asked} needs as many CUDA GPUs on this machine, got {present}")
    if accelerator == "cpu" and recipe.strategy == "fsdp":
        raise ValueError("recipe key 'strategy' must be 'auto' or 'ddp' without a GPU, got 'fsdp'")
    return accelerator
