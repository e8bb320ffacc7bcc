import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as oracle

from leanconv.tasks.detection import rle

IMAGES = arrays.arrays(
    np.uint16, arrays.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.sampled_from([0, 1, 2, 700])
)


@given(IMAGES)
def test_numbered_instances_are_the_masks_of_each(numbers):
    found = rle.of_numbers(numbers)
    assert found.keys() == set(np.unique(numbers).tolist()) - {0}
    for number, mask in found.items():
        assert mask == rle.encoded(numbers == number) == oracle.encode(np.asfortranarray(numbers == number, np.uint8))
        assert (rle.decoded(mask) == (numbers == number)).all()
        rows, columns = np.nonzero(numbers == number)
        assert rle.box(mask) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert rle.area(mask) == len(rows)


def test_polygons_are_drawn_as_pycocotools_draws_them():
    generator = np.random.default_rng(0)
    for _ in range(20):
        polygons = (generator.random((3, 10)) * 30 - 2).round(1).tolist()
        expected = oracle.merge(oracle.frPyObjects(polygons, 20, 25))
        assert rle.of_segmentation(polygons, 20, 25) == expected


@pytest.mark.parametrize("segmentation", [None, [], "x", [[1, 2]], [[1, 2, 3, 4, 5, 6, 7]], {"size": [2, 2]},
                                          {"size": [3, 2], "counts": [6]},
                                          {"size": [2, 2], "counts": [9]}])  # fmt: skip
def test_what_is_no_mask_is_refused(segmentation):
    with pytest.raises(ValueError, match=r"."):
        rle.of_segmentation(segmentation, 2, 2)
