import dataclasses

import pytest
import torch

from leanconv.tasks import Recipe, open_data
from leanconv.tasks.data.sources import prepared_for


def test_data_is_normalised_as_another_network_saw_its_own():
    data = open_data(Recipe(limit=20))
    other = prepared_for(data, dataclasses.replace(data.info, mean=(0.5,), std=(0.25,)))
    torch.testing.assert_close(other.test[0][0], (data.test.images[0] / 255 - 0.5) / 0.25)
    assert data.test.mean == data.mean != (0.5,)


@pytest.mark.parametrize(("name", "value"), [("in_chans", 3), ("num_classes", 7)])
def test_data_of_another_kind_is_refused(name, value):
    data = open_data(Recipe(limit=20))
    with pytest.raises(ValueError, match=f"{name} of the data must be the network's {value}"):
        prepared_for(data, dataclasses.replace(data.info, **{name: value}))


def with_classes(images, *classes):
    return dataclasses.replace(images, num_classes=len(classes), classes=classes)


def test_other_classes_are_refused():
    data = with_classes(open_data(Recipe(limit=20)), *"abcdefghij")
    with pytest.raises(ValueError, match=r"classes of the data must be the network's a, .*, k, got a, .*, j$"):
        prepared_for(data, with_classes(data.info, *"abcdefghik"))


def test_classes_in_another_order_are_labelled_as_the_network_knows_them():
    data = with_classes(open_data(Recipe(limit=20)), *"abcdefghij")
    other = prepared_for(data, with_classes(data.info, *"jihgfedcba"))
    assert torch.equal(other.test.labels, 9 - data.test.labels)
    for ours, theirs in zip(other.train.labels, data.train.labels, strict=True):
        assert other.classes[ours] == data.classes[theirs]


def test_classes_without_names_may_be_any():
    numbered = open_data(Recipe(limit=20))
    lettered = with_classes(numbered, *"abcdefghij")
    for data, info in ((numbered, lettered.info), (lettered, numbered.info)):
        other = prepared_for(data, info)
        assert torch.equal(other.test.labels, data.test.labels)
        assert other.classes == tuple("abcdefghij")
