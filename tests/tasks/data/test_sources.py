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
