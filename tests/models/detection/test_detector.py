from __future__ import annotations

import copy

import pytest
import torch
from models.detection.small import FEW_REGIONS, Body, detections, images, losses, small, targets
from models.small_resnet import randomised
from torch import nn
from torchvision.models import detection as theirs
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import box_iou, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

import leanconv as lc
from leanconv.models.detection import detector, feature_network
from leanconv.models.detection.detectors import KINDS, region_pool

NORM_WEIGHTS = 53_120  # torchvision's frozen norms hold these of ResNet-50 as buffers, here they are parameters


def params(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(("kind", "num_classes", "published"), [
    ("faster-rcnn", 90, theirs.FasterRCNN_ResNet50_FPN_Weights),
    ("mask-rcnn", 90, theirs.MaskRCNN_ResNet50_FPN_Weights),
    ("retinanet", 91, theirs.RetinaNet_ResNet50_FPN_Weights),  # torchvision's has a class that nothing belongs to
])
def test_parameters_are_torchvisions(kind, num_classes, published):
    with torch.device("meta"):
        network = detector(kind, "resnet50", num_classes, norms="frozen", trainable_stages=3)
    assert params(network) - NORM_WEIGHTS == published.COCO_V1.meta["num_params"]
    frozen = sum(weight.numel() for weight in network.parameters() if not weight.requires_grad)
    assert frozen == NORM_WEIGHTS + 222_400  # and the convolutions of the stem and the first stage


def reference(kind: str, num_classes: int, options: dict[str, int]) -> nn.Module:
    """torchvision's own, of ResNet-18."""
    dense = kind == "retinanet"
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5,
        **{"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)} if dense else {})
    make = {"faster-rcnn": theirs.FasterRCNN, "mask-rcnn": theirs.MaskRCNN, "retinanet": theirs.RetinaNet}[kind]
    limits = {"score_thresh": 0.0, "detections_per_img": 12}
    options = options | (limits if dense else {f"box_{name}": value for name, value in limits.items()})
    return randomised(make(backbone, num_classes if dense else num_classes + 1, min_size=64, max_size=96, **options))


@pytest.mark.parametrize("kind", ["faster-rcnn", "mask-rcnn", "retinanet"])
def test_results_are_torchvisions_given_its_weights(kind):
    options = {} if kind == "retinanet" else FEW_REGIONS
    expected = reference(kind, 3, options)
    network = detector(kind, "resnet18", 3, min_size=64, max_size=96, score_thresh=0.0, detections_per_img=12,
                       **options)
    network.load_state_dict(expected.state_dict())
    ours, labels = targets(), targets()
    if kind == "retinanet":
        for target in labels:
            target["labels"] = target["labels"] - 1
    for name, loss in losses(expected, labels).items():
        torch.testing.assert_close(losses(network, ours)[name], loss)
    network.load_state_dict(expected.state_dict())  # training moved the norms' statistics
    for found, other in zip(detections(network), detections(expected), strict=True):
        assert len(other["boxes"]) > 10
        shifted = other["labels"] + (kind == "retinanet")
        assert torch.equal(found["labels"], shifted)
        assert set(found["labels"].tolist()) <= {1, 2, 3}
        for name in set(other) - {"labels"}:
            torch.testing.assert_close(found[name], other[name])


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_learns_and_finds(kind):
    network = small(kind, upsample="ddf-up")
    found = targets()
    with_an_empty_image = [found[0], {name: value[:0] for name, value in found[1].items()}]
    for each in (found, with_an_empty_image):
        network.zero_grad()
        sum(losses(network, each).values()).backward()
        gradients = [weight.grad for weight in network.parameters()]
        assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
    assert all(weight.grad is not None for weight in network.backbone.parameters())
    network = small(kind, score_thresh=0.0, detections_per_img=7)
    for image, each in zip(images(), detections(network), strict=True):
        assert len(each["boxes"]) == len(each["labels"]) == len(each["scores"]) == 7
        assert set(each["labels"].tolist()) <= {1, 2, 3}
        height, width = image.shape[1:]
        assert (each["boxes"] >= 0).all()
        assert (each["boxes"] <= torch.tensor([width, height, width, height]) * (1 + 1e-6)).all()
        if "mask" in kind:
            assert each["masks"].shape == (7, 1, height, width)
            assert each["masks"].min() >= 0
            assert each["masks"].max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_thresholds_take_effect(kind):
    assert all(len(each["boxes"]) == 0 for each in detections(small(kind, score_thresh=1.0)))
    if "mask" in kind:
        return
    every = detections(small(kind, score_thresh=0.0, nms_thresh=1.0, detections_per_img=10_000))
    apart = detections(small(kind, score_thresh=0.0, nms_thresh=0.3, detections_per_img=10_000))
    for each, few in zip(every, apart, strict=True):
        assert len(few["boxes"]) < len(each["boxes"])
        for label in (1, 2, 3):
            boxes = few["boxes"][few["labels"] == label]
            assert (box_iou(boxes, boxes).fill_diagonal_(0) <= 0.3 + 1e-3).all()


@pytest.mark.parametrize("name", ["ddf_mul_resnet50", "ghostnet_x100"])
def test_the_papers_networks_are_backbones(name):
    network = small("faster-rcnn", body=feature_network(name), score_thresh=0.0)
    assert all(len(each["boxes"]) for each in detections(network))


def test_a_swapped_and_fused_backbone_in_a_detector():
    body = Body((16, 16, 32, 32)).eval()
    body = lc.swap(body, lc.plan(body, "tied", blocks=2, scope="all", where="stages.[123].0"))
    network = small("faster-rcnn", body=randomised(body), score_thresh=0.0)
    assert any(isinstance(module, lc.nn.TiedConv2d) for module in network.backbone.body.modules())
    expected = detections(network)
    network.backbone = lc.fuse(network.backbone, torch.randn(1, 3, 64, 96))
    assert network.backbone.fusion.folded
    for each, other in zip(detections(network), expected, strict=True):
        torch.testing.assert_close(each["scores"], other["scores"], rtol=1e-3, atol=1e-5)


def test_published_weights_freeze_norms_and_the_first_stage(monkeypatch):
    asked = []

    def built(name, *, pretrained):
        asked.append((name, pretrained))
        return feature_network(name)

    monkeypatch.setattr("leanconv.models.detection.detectors.feature_network", built)
    options = {"channels": 8, "min_size": 64}
    network = detector("faster-rcnn", "resnet10t", 1, pretrained_backbone=True, **options).train()
    body = network.backbone.body
    assert asked == [("resnet10t", True)]
    assert not any(module.training for module in body.modules() if isinstance(module, nn.BatchNorm2d))
    assert not any(weight.requires_grad for weight in [*body.conv1.parameters(), *body.layer1.parameters()])
    assert body.layer2[0].conv1.weight.requires_grad
    fresh = detector("faster-rcnn", "resnet10t", 1, **options).train()
    assert all(weight.requires_grad for weight in fresh.parameters())
    assert all(module.training for module in fresh.backbone.modules())


def test_images_are_normalised_as_the_backbone_wants_them():
    body = Body()
    assert small("faster-rcnn", body=body).transform.image_mean == (0.485, 0.456, 0.406)
    body.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.3, 0.4)}
    for kind in KINDS:
        transform = small(kind, body=copy.deepcopy(body)).transform
        assert (transform.image_mean, transform.image_std) == ((0.5, 0.5, 0.5), (0.2, 0.3, 0.4))


def test_training_draws_a_size_and_evaluation_takes_the_last():
    transform = small("faster-rcnn", min_size=[48, 64, 80], max_size=120).transform
    image = torch.rand(3, 60, 70)
    drawn = {min(transform.train()([image])[0].image_sizes[0]) for _ in range(40)}
    assert drawn == {48, 64, 80}
    assert {min(transform.eval()([image])[0].image_sizes[0]) for _ in range(5)} == {80}
    assert max(transform([torch.rand(3, 40, 100)])[0].image_sizes[0]) == 120


@pytest.mark.parametrize(("kind", "sizes"), [
    ("faster-rcnn", [(6,), (12,), (24,), (48,), (96,)]),
    ("retinanet", [(6, 7, 9), (12, 15, 19), (24, 30, 38), (48, 60, 76), (96, 120, 152)]),
])
def test_anchors_double_from_level_to_level(kind, sizes):
    network = small(kind, anchor_size=6)
    generator = network.anchor_generator if kind == "retinanet" else network.rpn.anchor_generator
    assert list(generator.sizes) == sizes
    assert set(generator.aspect_ratios) == {(0.5, 1.0, 2.0)}
    plain = theirs.retinanet._default_anchorgen if kind == "retinanet" else theirs.faster_rcnn._default_anchorgen
    network = small(kind, anchor_size=32)
    generator = network.anchor_generator if kind == "retinanet" else network.rpn.anchor_generator
    assert (generator.sizes, generator.aspect_ratios) == (plain().sizes, plain().aspect_ratios)


def test_regions_are_pooled_at_the_right_place_of_a_mostly_padded_image():
    """torchvision's guess for an image of 65 pixels, padded to 96, is that the finest map has half its size."""
    maps = {str(index): torch.randn(1, 4, 96 // stride, 96 // stride) for index, stride in enumerate((4, 8, 16, 32))}
    boxes = torch.tensor([[8.0, 8, 40, 40], [0, 0, 64, 64]])
    pooled = region_pool(7, 8)(maps, [boxes], [(65, 65)])
    rois = torch.cat([torch.zeros(2, 1), boxes], 1)
    torch.testing.assert_close(pooled[0], roi_align(maps["1"], rois, 7, 1 / 8, 2)[0])  # 32 pixels: 56 · 2^(3 - 4) = 28
    torch.testing.assert_close(pooled[1], roi_align(maps["2"], rois, 7, 1 / 16, 2)[1])


def test_options_reach_torchvisions_class():
    network = small("faster-rcnn", rpn_nms_thresh=0.61, box_batch_size_per_image=33, size_divisible=64)
    assert network.rpn.nms_thresh == 0.61
    assert network.roi_heads.fg_bg_sampler.batch_size_per_image == 33
    assert network.transform.size_divisible == 64
    assert small("retinanet", topk_candidates=77).topk_candidates == 77


@pytest.mark.parametrize(("kind", "options", "message"), [
    ("fast-rcnn", {}, "unknown kind of detector 'fast-rcnn': did you mean 'faster-rcnn'"),
    ("faster-rcnn", {"num_classes": 0}, "num_classes must be a whole number of at least 1, got 0"),
    ("faster-rcnn", {"min_size": ()}, "min_size must be at least one number, got none"),
    ("faster-rcnn", {"min_size": (64, 0)}, "min_size must be a whole number of at least 1, got 0"),
    ("faster-rcnn", {"max_size": 0}, "max_size must be a whole number of at least 1, got 0"),
    ("faster-rcnn", {"anchor_size": 0}, "anchor_size must be a whole number of at least 1, got 0"),
    ("faster-rcnn", {"pretrained_backbone": True}, "pretrained_backbone is for a backbone's name"),
    ("faster-rcnn", {"box_nms_tresh": 0.5}, "unknown option of faster-rcnn 'box_nms_tresh'"),
    ("faster-rcnn", {"class_agnostic": True}, "unknown option of faster-rcnn 'class_agnostic'"),
    ("retinanet", {"box_fg_iou_thresh": 0.5}, "unknown option of retinanet 'box_fg_iou_thresh': did you mean 'fg_iou"),
    ("cascade-rcnn", {"bbox_reg_weights": (1, 1, 1, 1)}, "unknown option of cascade-rcnn 'bbox_reg_weights'"),
    ("cascade-rcnn", {"stages": ()}, "stages must be at least one, got none"),
])
def test_bad_arguments_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        small(kind, **options)
