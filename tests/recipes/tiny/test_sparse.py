import torch

from anomalyclip_monai.networks.dual_path import encode_image
from anomalyclip_monai.networks.towers import vision_tower
from recipes.tiny.sparse import SparseTower, choose_tokens


def test_chosen_tokens_are_in_order_without_repeats_and_seeded():
    kept = choose_tokens(3, 36, 0.5, torch.Generator().manual_seed(0))
    assert kept.shape == (3, 18)
    assert (kept.diff(dim=1) > 0).all()
    assert kept.min() >= 0
    assert kept.max() < 36
    assert torch.equal(kept, choose_tokens(3, 36, 0.5, torch.Generator().manual_seed(0)))


def test_all_tokens_give_the_features_of_the_tower(tiny_clip):
    tower, images = vision_tower(tiny_clip.visual), torch.randn(2, 3, 56, 56)
    options = {"local_blocks": 2, "feature_layers": (3, 4)}
    full = encode_image(tower, images, **options)
    same = encode_image(SparseTower(tower, torch.arange(16).expand(2, -1)), images, **options)
    torch.testing.assert_close(same.image, full.image)
    torch.testing.assert_close(same.patches[4], full.patches[4])


def test_tokens_that_are_dropped_are_not_seen(tiny_clip):
    tower, images = vision_tower(tiny_clip.visual), torch.randn(1, 3, 56, 56)
    changed = images.clone()
    changed[..., :14, :14] += 5  # the first patch
    kept = torch.arange(1, 16)[None]
    options = {"local_blocks": 2, "feature_layers": (4,)}
    first, second = (encode_image(SparseTower(tower, kept), batch, **options) for batch in (images, changed))
    assert first.patches[4].shape == (1, 16, 16)
    torch.testing.assert_close(first.patches[4], second.patches[4])
