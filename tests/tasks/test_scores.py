import pytest
import torch
from torch.nn import functional as F

from leanconv.tasks.scores import scores


def test_scores_over_uneven_batches_equal_those_of_all_images():
    logits, labels = torch.randn(25, 7), torch.randint(7, (25,))
    found = scores(7, per_class=True)
    for part in (slice(0, 16), slice(16, 25)):
        found.update(logits[part], labels[part])
    values = found.compute()
    right = logits.argmax(1) == labels
    among_five = (logits.topk(5).indices == labels[:, None]).any(1)
    assert values["loss"].item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert values["accuracy"].item() == pytest.approx(right.float().mean().item())
    assert values["top5"].item() == pytest.approx(among_five.float().mean().item())
    for label in labels.unique():
        assert values["per_class"][label].item() == pytest.approx(right[labels == label].float().mean().item())


def test_no_top5_for_five_classes():
    assert "top5" not in scores(5)
    assert "top5" in scores(6)
