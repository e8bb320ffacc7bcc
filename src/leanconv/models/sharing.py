"""Networks in folders and on the Hugging Face Hub, weights and all, as timm reads and writes them too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models._hub import save_config_for_hf
from torch import nn

from leanconv.errors import unknown
from leanconv.files import make_folder, moved_into_place
from leanconv.models import swapped  # noqa: F401  (registers the networks of plans)
from leanconv.models.create import SWAPPED
from leanconv.models.weights import load_state, misfits, owned
from leanconv.surgery import Plan

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PREPROCESSING = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


def save(
    model: nn.Module,
    folder: str | Path,
    *,
    classes: Sequence[str] = (),
    preprocessing: Mapping[str, Any] | None = None,
    plans: Sequence[Plan] = (),
) -> None:
    """Writes a network into a folder: model.safetensors, and config.json with what it takes to build it again.

    `load` reads it, and so does timm once leanconv.models is imported:
    `timm.create_model("local-dir:FOLDER", pretrained=True)`, with another num_classes if you like. The configuration
    holds the network's name and the options that it was created with. Before anything is written, a network is built
    from it, on the meta device, and must have the same tensors.

    Args:
        model: a network that `create` or `timm.create_model` built, on any device, swapped or not, but not fused.
        folder: made if need be; a network in it is replaced.
        classes: the name of each class, in order; by default those that the network's weights came with.
        preprocessing: how images are made ready, in timm's words: input_size (C, H, W), mean, std, interpolation,
            crop_pct, crop_mode; the network's own default for what is left out.
        plans: those by which `leanconv.swap` changed it, the first one first; not those that `load` applied.

    Raises:
        ValueError: for a network that timm doesn't know by a name, a fused one, one that the plans don't explain, or
            classes or preprocessing that can't be.
        OSError: the folder can't be written; what it held is still there.

    >>> network = timm.create_model("cifar_resnet20", shortcut="B")
    >>> with TemporaryDirectory() as folder:
    ...     save(network, folder, classes=list("abcdefghij"))
    ...     again = load(folder)
    >>> again.pretrained_cfg["label_names"][:3], torch.equal(again.fc.weight, network.fc.weight)
    (['a', 'b', 'c'], True)
    """
    folder = Path(folder)
    make_folder(folder)
    with moved_into_place(folder) as temporary:
        write_config(model, temporary / CONFIG, classes, preprocessing or {}, plans)
        require_same(model, temporary)
        save_file(owned(model.state_dict()), temporary / WEIGHTS, {"format": "pt"})


def load(source: str | Path) -> nn.Module:
    """The network in a folder or on the Hugging Face Hub, with its weights, in evaluation mode.

    What `save` was told is in its `pretrained_cfg`, the classes as "label_names". To train it on for other classes,
    give its place to `create`: `create("local-dir:FOLDER", pretrained=True, num_classes=7)`, or "hf-hub:USER/NAME".

    Args:
        source: a folder that `save` or timm wrote, or else "USER/NAME" or "USER/NAME@REVISION" on the hub.

    Raises:
        ValueError: there is no such folder or name, a file of it is damaged, or the weights don't fit.
    """
    folder = Path(source) if Path(source).is_dir() else downloaded(str(source))
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{source} must hold a network that leanconv or timm wrote, got no {CONFIG}")
    try:
        model = timm.create_model(f"local-dir:{folder}")
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} must say how the network is built: {error!r}") from error
    load_state(model, folder / WEIGHTS)
    return model.eval()


def push_to_hub(
    model: nn.Module,
    name: str,
    *,
    classes: Sequence[str] = (),
    preprocessing: Mapping[str, Any] | None = None,
    plans: Sequence[Plan] = (),
    license: str | None = None,
    private: bool = False,
) -> str:
    """Writes a network as `save` does and puts it on the Hugging Face Hub, with a model card unless one is there.

    Log in first: `hf auth login`, or the environment variable HF_TOKEN.

    Args:
        model, classes, preprocessing, plans: see `save`.
        name: "USER/NAME"; made if need be.
        license: of the weights, for a new card, such as "apache-2.0"; None says nothing.
        private: whether a new one is hidden from others.

    Returns:
        The address of what was added.

    Raises:
        ValueError: see `save`.
    """
    from huggingface_hub import HfApi

    with TemporaryDirectory() as folder:
        save(model, folder, classes=classes, preprocessing=preprocessing, plans=plans)
        hub = HfApi(library_name="leanconv")
        place = hub.create_repo(name, private=private, exist_ok=True).repo_id
        if not hub.file_exists(place, "README.md"):
            (Path(folder) / "README.md").write_text(card(place, license), encoding="utf-8")
        return str(hub.upload_folder(repo_id=place, folder_path=folder, commit_message="Add the network"))


def write_config(
    model: nn.Module, file: Path, classes: Sequence[str], preprocessing: Mapping[str, Any], plans: Sequence[Plan]
) -> None:
    """Writes the configuration as timm has it."""
    configuration: Any = getattr(model, "pretrained_cfg", {})
    architecture = configuration.get("architecture", "")
    if not timm.is_model(architecture) or not hasattr(model, "num_classes"):
        kind = type(model).__name__
        raise ValueError(f"model must be a whole network that timm knows by a name, got a {kind} it didn't create")
    if hasattr(model, "fusion"):
        raise ValueError("model must have its norms, got a fused one: save it before, and fuse it after loading")
    if classes and len(classes) != model.num_classes:
        raise ValueError(f"classes must be as many as the network's {model.num_classes}, got {len(classes)}")
    for key in preprocessing:
        if key not in PREPROCESSING:
            raise unknown("key of preprocessing", key, PREPROCESSING)
    described: dict[str, Any] = {"label_names": list(classes)} if classes else {}
    options: dict[str, Any] = {}
    if plans:
        known: Any = getattr(model, "_model_args", {})
        texts = [*known.get("plans", ()), *(plan.to_yaml() for plan in plans)]
        options = {"network": known.get("network", architecture), "plans": texts}
        described["pretrained_cfg"] = {"architecture": SWAPPED}
    save_config_for_hf(model, file, model_config=described, model_args=options, data_config=dict(preprocessing))


def require_same(model: nn.Module, folder: Path) -> None:
    """Refuses a network that isn't the one that a folder's configuration builds.

    Raises:
        ValueError: the message lists the tensors in which they differ.
    """
    with torch.device("meta"):
        twin = timm.create_model(f"local-dir:{folder}")
    if found := misfits(twin, model.state_dict()):
        raise ValueError(
            "model must be what its name, its options and the plans build (plans= are those that swapped it), "
            f"got {found}"
        )


def downloaded(name: str) -> Path:
    """The folder with what the hub has under a name, downloaded unless it is there.

    Raises:
        ValueError: there is no folder and no such name on the hub, or the hub can't be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    place, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(place, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"no folder {name!r}, and the Hugging Face Hub doesn't give a network: {reason}") from error


def card(place: str, license: str | None) -> str:
    """The model card of a network."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        license=license, library_name="timm", tags=["leanconv", "timm"], pipeline_tag="image-classification"
    )
    return f"""---
{data.to_yaml()}
---
# {place.rpartition("/")[2]}

```python
from leanconv import models

network = models.load("{place}")
```

With leanconv.models imported, `timm.create_model("hf-hub:{place}", pretrained=True)` builds it too.
"""
