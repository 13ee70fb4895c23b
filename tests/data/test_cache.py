import numpy as np
from planted import Planted

from fgvce_jax.data.cache import CachedDataset


def test_the_cache_holds_the_images_that_the_dataset_draws():
    class Drawn(Planted):
        def images(self, indices):
            return self.pixels[np.asarray(indices)]

    dataset, counts = Drawn(250, 0), []
    cached = CachedDataset(dataset, counts.append)
    assert counts == [100, 100, 50]
    assert len(cached) == 250
    for index in (0, 99, 100, 249):
        example = cached[index]
        np.testing.assert_array_equal(example.image, dataset.pixels[index])
        assert (example.label, example.id) == (index % 3, str(index))
