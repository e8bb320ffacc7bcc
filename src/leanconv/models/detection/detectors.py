"""Detectors: torchvision's, and Cascade R-CNN, on any network's feature maps."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN, _utils
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from leanconv.errors import unknown
from leanconv.models.detection.backbone import STRIDES, Backbone, Norms
from leanconv.models.detection.cascade import cascade_heads
from leanconv.models.detection.feature_pyramid import Upsample
from leanconv.models.detection.features import feature_network
from leanconv.models.detection.retinanet import RetinaNet
from leanconv.nn.arguments import require_positive

Kind = Literal["retinanet", "faster-rcnn", "mask-rcnn", "cascade-rcnn", "cascade-mask-rcnn"]
KINDS: dict[str, type[nn.Module]] = {
    "retinanet": RetinaNet,
    "faster-rcnn": FasterRCNN,
    "mask-rcnn": MaskRCNN,
    "cascade-rcnn": FasterRCNN,
    "cascade-mask-rcnn": MaskRCNN,
}
RATIOS = (0.5, 1.0, 2.0)  # height / width of the anchors
LEVELS = 5  # that have anchors, of sides doubled from level to level
OF_TRANSFORM = {"size_divisible", "fixed_size"}  # which torchvision's detectors hand on
OF_CASCADE = {"stages", "class_agnostic"}
IN_STAGES = {"box_head", "box_predictor", "box_fg_iou_thresh", "box_bg_iou_thresh", "bbox_reg_weights"}


def detector(
    kind: Kind,
    backbone: str | nn.Module,
    num_classes: int,
    *,
    upsample: Upsample = "nearest",
    pretrained_backbone: bool = False,
    norms: Norms | None = None,
    trainable_stages: int | None = None,
    channels: int = 256,
    min_size: int | Sequence[int] = 800,
    max_size: int = 1333,
    anchor_size: int = 32,
    score_thresh: float = 0.05,
    nms_thresh: float = 0.5,
    detections_per_img: int = 100,
    **options: Any,
) -> nn.Module:
    """Builds a detector, called as torchvision's are.

    In training mode it takes a list of float images (3, H, W) in 0 to 1 and a list of targets, {boxes: float (n, 4) as
    x1, y1, x2, y2 in pixels, labels: int64 (n,), masks: uint8 (n, H, W) for masks}, and returns a dictionary of losses.
    In evaluation mode it takes images and returns a list of {boxes, labels, scores[, masks (n, 1, H, W) in 0 to 1]}.
    Labels are 1 to num_classes. Images are normalised as the backbone's weights want it, resized, and padded.

    Args:
        kind: "retinanet", "faster-rcnn", "mask-rcnn", "cascade-rcnn" or "cascade-mask-rcnn".
        backbone: a network's name, or a network that returns its feature maps (timm's `features_only=True`), swapped or
            not, which becomes a part of the detector.
        num_classes: K, without the background.
        upsample: of the feature pyramid, see `FeaturePyramid`.
        pretrained_backbone: load the backbone's published weights.
        norms: of the backbone, see `Backbone`; by default "frozen" with published weights, else "batch".
        trainable_stages: of the backbone's four; by default 3 with published weights, else all.
        channels: of the feature pyramid.
        min_size: the shorter side that images are resized to, in pixels; of several, training draws one for each image
            and evaluation takes the last one.
        max_size: the most that the longer side is resized to.
        anchor_size: the side of the finest level's anchors in pixels of the resized image; at each of the four coarser
            levels it is doubled. The size from which boxes are pooled at a coarser level goes with it.
        score_thresh: detections of lower scores are dropped.
        nms_thresh: overlap with a better detection of the same class, above which one is dropped.
        detections_per_img: the most that are kept of an image.
        options: further arguments of torchvision's class: `rpn_*`, `box_*` and `mask_*`; of `RetinaNet`
            `topk_candidates`, `fg_iou_thresh` and so on; of its transform `size_divisible` and `fixed_size`. For a
            cascade: `stages`, a sequence of `Stage`, and `class_agnostic`, whether one box regression serves all
            classes (True).

    Raises:
        ValueError: for an unknown kind or option, numbers that can't be, or a backbone without the feature maps.

    >>> import torch
    >>> network = detector("faster-rcnn", "resnet10t", 3, channels=16, min_size=64, anchor_size=8).eval()
    >>> sorted(network([torch.rand(3, 60, 80)])[0])
    ['boxes', 'labels', 'scores']
    """
    if kind not in KINDS:
        raise unknown("kind of detector", kind, KINDS)
    require_positive(num_classes=num_classes, max_size=max_size, anchor_size=anchor_size,
                     detections_per_img=detections_per_img)
    sizes = (min_size,) if isinstance(min_size, int) else tuple(min_size)
    if not sizes:
        raise ValueError("min_size must be at least one number, got none")
    for size in sizes:
        require_positive(min_size=size)
    if isinstance(backbone, nn.Module) and pretrained_backbone:
        raise ValueError("pretrained_backbone is for a backbone's name: a network has the weights that it came with")
    refuse_unknown(kind, options)

    body = feature_network(backbone, pretrained=pretrained_backbone) if isinstance(backbone, str) else backbone
    dense, cascade = kind == "retinanet", kind.startswith("cascade")
    pyramid = Backbone(
        body,
        strides=STRIDES[1:] if dense else STRIDES,
        channels=channels,
        upsample=upsample,
        extra="convolutions" if dense else "pool",
        norms=norms or ("frozen" if pretrained_backbone else "batch"),
        trainable_stages=(3 if pretrained_backbone else len(STRIDES)) if trainable_stages is None else trainable_stages,
    )
    limits = {"score_thresh": score_thresh, "nms_thresh": nms_thresh, "detections_per_img": detections_per_img}
    settings: dict[str, Any] = {"min_size": sizes, "max_size": max_size}
    settings |= {f"image_{name}": value for name, value in normalisation(body).items()}
    if dense:
        settings |= limits | {"anchor_generator": octaves(anchor_size)}
        return in_full_precision(RetinaNet(pyramid, num_classes, **settings | options))

    settings |= {f"box_{name}": limit for name, limit in limits.items()}
    settings |= {"rpn_anchor_generator": anchors(anchor_size), "box_roi_pool": region_pool(7, anchor_size)}
    if KINDS[kind] is MaskRCNN:
        settings |= {"mask_roi_pool": region_pool(14, anchor_size)}
    if not cascade:
        return in_full_precision(KINDS[kind](pyramid, num_classes + 1, **settings | options))

    of_cascade = {name: options.pop(name) for name in OF_CASCADE & options.keys()}
    settings |= {"box_head": nn.Identity(), "box_predictor": nn.Identity()}  # each stage has its own
    if KINDS[kind] is MaskRCNN:
        settings |= {"mask_predictor": MaskRCNNPredictor(256, 256, num_classes + 1)}
    network: Any = KINDS[kind](pyramid, **settings | options)
    network.roi_heads = cascade_heads(network.roi_heads, channels, num_classes + 1, **of_cascade)
    return in_full_precision(network)


class BoxCoder(_utils.BoxCoder):
    """torchvision's, which would round boxes to the precision of the regressions: 4 pixels in bfloat16."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        return super().decode_single(rel_codes.float(), boxes.float())


def in_full_precision(network: nn.Module) -> nn.Module:
    """A detector whose boxes are float32, also where autocast runs its layers in fewer bits."""
    for module in network.modules():
        if isinstance(coder := getattr(module, "box_coder", None), _utils.BoxCoder):
            module.box_coder = BoxCoder(coder.weights, coder.bbox_xform_clip)
    return network


def refuse_unknown(kind: str, options: Mapping[str, Any]) -> None:
    """Raises ValueError for an option that a kind of detector would ignore."""
    known = set(inspect.signature(KINDS[kind].__init__).parameters) | OF_TRANSFORM
    known -= {"self", "kwargs", "backbone", "num_classes", "box_score_thresh", "box_nms_thresh",
              "box_detections_per_img"}
    if kind.startswith("cascade"):
        known = (known | OF_CASCADE) - IN_STAGES
    for option in options:
        if option not in known:
            raise unknown(f"option of {kind}", option, known)


def normalisation(body: nn.Module) -> dict[str, Sequence[float]]:
    """The mean and the standard deviation that a network wants its images normalised by: ImageNet's by default."""
    known: Any = getattr(body, "pretrained_cfg", None) or {}
    return {"mean": known.get("mean", IMAGENET_DEFAULT_MEAN), "std": known.get("std", IMAGENET_DEFAULT_STD)}


def anchors(smallest: int) -> AnchorGenerator:
    """One size of anchors a level, of three shapes."""
    return AnchorGenerator(tuple((smallest * 2**level,) for level in range(LEVELS)), (RATIOS,) * LEVELS)


def octaves(smallest: int) -> AnchorGenerator:
    """Three sizes of anchors a level, a third of an octave apart, of three shapes."""
    sizes = tuple(tuple(int(smallest * 2**level * 2 ** (third / 3)) for third in range(3)) for level in range(LEVELS))
    return AnchorGenerator(sizes, (RATIOS,) * LEVELS)


def region_pool(size: int, anchor_size: int) -> MultiScaleRoIAlign:
    """Pools regions from the pyramid's four finest levels.

    Left to itself, torchvision guesses the levels' strides from the first batch's maps, and guesses wrong where the
    padding makes up a third of an image.
    """
    canonical = 7 * anchor_size  # with anchors from 32 pixels the usual 224, at level 4
    pool = MultiScaleRoIAlign(list("0123"), size, sampling_ratio=2, canonical_scale=canonical)
    pool.scales = [1 / stride for stride in STRIDES]
    pool.map_levels = LevelMapper(2, 5, canonical_scale=canonical)
    return pool
