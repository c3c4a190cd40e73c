"""Batches are fixed by their number; patches hold what they should."""

from collections import Counter

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.core.seed import stream
from fewmask.core.volume import IGNORE
from fewmask.data.batches import ArraySource, PatchSource, Stream


def numbered(count: int, size: int = 4) -> ArraySource:
    """Image i holds the value i / 100 everywhere; mask i the label i."""
    images = np.broadcast_to(np.arange(count).reshape(-1, 1, 1, 1) / 100, (count, 1, size, size))
    masks = np.broadcast_to(np.arange(count, dtype=np.uint8).reshape(-1, 1, 1), (count, size, size))
    return ArraySource(images.astype(np.float32), masks)


def noise(image, mask, chance):
    return image + torch.rand(image.shape, generator=chance), mask


def same(a, b) -> bool:
    return torch.equal(a.image, b.image) and torch.equal(a.index, b.index) and torch.equal(a.mask, b.mask)


def test_batches_have_the_promised_types_and_belong_together() -> None:
    batch = Stream(numbered(10), 3, seed=1, name="train").at(0)
    assert (batch.image.dtype, batch.mask.dtype, batch.index.dtype) == (
        torch.float32,
        torch.int64,
        torch.int64,
    )
    assert (tuple(batch.image.shape), tuple(batch.mask.shape), len(batch)) == ((3, 1, 4, 4), (3, 4, 4), 3)
    assert torch.allclose(batch.image[:, 0, 0, 0], batch.index / 100)
    assert torch.equal(batch.mask[:, 0, 0], batch.index)
    assert batch.to("cpu").image is not None


def test_a_batch_is_fixed_by_its_number_alone() -> None:
    forwards = Stream(numbered(10), 4, seed=1, name="train", augment=noise)
    batches = [forwards.at(n) for n in range(0, 60, 4)]
    for n in (56, 4, 32, 4, 0):
        fresh = Stream(numbered(10), 4, seed=1, name="train", augment=noise)
        assert same(fresh.at(n), batches[n // 4])
        assert same(forwards.at(n), batches[n // 4])


def test_every_epoch_is_a_new_permutation() -> None:
    batches = Stream(numbered(10), 4, seed=1, name="train")
    order = [batches.index(n) for n in range(50)]
    epochs = [tuple(order[n : n + 10]) for n in range(0, 50, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(epochs)) == 5
    assert torch.cat([batches.at(n).index for n in range(0, 48, 4)]).tolist() == order[:48]


def test_the_order_of_images_does_not_depend_on_the_batch_size() -> None:
    def order(size: int) -> list[int]:
        batches = Stream(numbered(10), size, seed=1, name="train")
        return torch.cat([batches.at(n).index for n in range(0, 24, size)]).tolist()

    assert order(1) == order(4) == order(12)


@pytest.mark.parametrize("change", [{"seed": 2}, {"name": "other"}])
def test_another_seed_or_name_is_another_order(change: dict) -> None:
    settings = {"seed": 1, "name": "train"}
    a = Stream(numbered(50), 50, **settings).at(0)
    b = Stream(numbered(50), 50, **(settings | change)).at(0)
    assert a.index.tolist() != b.index.tolist()


def test_weights_draw_with_replacement() -> None:
    batches = Stream(numbered(4), 4, seed=1, name="train", weights=[0, 1, 1, 2])
    counts = Counter(batches.index(n) for n in range(4000))
    assert counts[0] == 0
    assert counts[3] / 4000 == pytest.approx(0.5, abs=0.03)
    assert counts[1] / 4000 == pytest.approx(0.25, abs=0.03)
    assert same(batches.at(400), Stream(numbered(4), 4, seed=1, name="train", weights=[0, 1, 1, 2]).at(400))


def test_each_process_gets_its_slice_of_the_batch() -> None:
    batches = Stream(numbered(10), 6, seed=1, name="train")
    parts = [batches.at(12, rank=rank, ranks=2) for rank in range(2)]
    whole = batches.at(12)
    for rank, part in enumerate(parts):
        assert torch.equal(part.image, whole.image[rank::2])
        assert torch.equal(part.index, whole.index[rank::2])
    with pytest.raises(ConfigError, match="multiple of the number of devices"):
        batches.at(0, ranks=4)


def drawn_in_patches() -> Stream:
    images = [ramp((12 + i, 11)) for i in range(5)]
    masks = [(image[0] * 250).astype(np.uint8) for image in images]
    return Stream(PatchSource(images, masks, (6, 6)), 6, seed=1, name="train", augment=noise)


def test_patches_and_augmentation_do_not_depend_on_the_number_of_processes() -> None:
    whole = drawn_in_patches().at(12)
    for ranks in (2, 3):
        for rank in range(ranks):
            assert same(drawn_in_patches().at(12, rank=rank, ranks=ranks), whole.take(slice(rank, 6, ranks)))


def test_class_labels_travel_with_their_images() -> None:
    source = numbered(10)
    hot = np.eye(3, dtype=np.float64)[np.arange(10) % 3]
    labelled = ArraySource(source.images, source.masks, hot)
    batch = Stream(labelled, 4, seed=1, name="train", augment=noise).at(4, rank=1, ranks=2)
    assert batch.label.dtype == torch.float32
    assert torch.equal(batch.label.argmax(dim=1), batch.index % 3)
    assert torch.equal(batch.to("cpu").label, batch.label)
    assert Stream(source, 4, seed=1, name="train").at(0).label is None


@pytest.mark.parametrize(
    "labels", [np.zeros((3, 2)), np.full((3, 2), 0.5), np.eye(4)[:2], np.zeros(3), np.eye(3) * np.nan]
)
def test_labels_that_are_not_one_hot_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="class labels"):
        ArraySource(np.zeros((3, 1, 4, 4), np.float32), None, labels)


@pytest.mark.parametrize(
    ("kind", "scale", "value", "expected"),
    [
        (np.uint8, (2 / 255, -1), 255, 1),
        (np.uint16, (2 / 4095, -1), 4095, 1),
        (np.int16, (1e-3, 0), -500, -0.5),
    ],
)
def test_whole_numbers_are_mapped_when_fetched(kind, scale, value, expected, tmp_path) -> None:
    np.save(tmp_path / "x.npy", np.full((3, 1, 4, 4), value, kind))
    source = ArraySource(np.load(tmp_path / "x.npy", mmap_mode="r"), scale=scale)
    batch = Stream(source, 2, seed=1, name="x").at(0)
    assert batch.image.dtype == torch.float32
    assert source.images.dtype == kind
    torch.testing.assert_close(batch.image, torch.full((2, 1, 4, 4), float(expected)))


def test_whole_numbers_without_a_scale_are_refused() -> None:
    with pytest.raises(ConfigError, match="need their scale"):
        ArraySource(np.zeros((3, 1, 4, 4), np.uint8))
    with pytest.raises(ConfigError, match="finite and not zero"):
        ArraySource(np.zeros((3, 1, 4, 4), np.uint8), scale=(0, -1))


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_soft_masks_come_as_float32(kind) -> None:
    soft = np.full((5, 3, 4, 4), 0.25, kind) * np.arange(5, dtype=kind).reshape(-1, 1, 1, 1) / 4
    batch = Stream(ArraySource(numbered(5).images, soft), 4, seed=1, name="x").at(0, rank=1, ranks=2)
    assert (batch.mask.dtype, tuple(batch.mask.shape)) == (torch.float32, (2, 3, 4, 4))
    torch.testing.assert_close(batch.mask[:, 2, 1, 1] * 16, batch.index.float())


def test_images_without_masks_and_of_other_types() -> None:
    source = ArraySource(np.zeros((3, 2, 4, 5, 6), np.float16))
    batch = Stream(source, 2, seed=1, name="train", augment=noise).at(0)
    assert batch.mask is None
    assert (batch.image.dtype, tuple(batch.image.shape)) == (torch.float32, (2, 2, 4, 5, 6))


def test_memory_mapped_images(tmp_path) -> None:
    np.save(tmp_path / "images.npy", numbered(10).images)
    mapped = ArraySource(np.load(tmp_path / "images.npy", mmap_mode="r"), numbered(10).masks)
    assert same(Stream(mapped, 4, seed=1, name="x").at(8), Stream(numbered(10), 4, seed=1, name="x").at(8))


def test_what_does_not_fit_is_refused() -> None:
    images = np.zeros((3, 1, 4, 4), np.float32)
    with pytest.raises(ShapeError, match="do not fit their images"):
        ArraySource(images, np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(ShapeError, match="do not fit their images"):
        ArraySource(images, np.zeros((3, 4, 4), np.int64))
    with pytest.raises(ShapeError, match="non-empty array"):
        ArraySource(images[:0])
    with pytest.raises(ShapeError, match="does not fit the patch"):
        PatchSource([images[0], np.zeros((2, 4, 4), np.float32)], None, (2, 2))
    with pytest.raises(ShapeError, match="every training image needs its mask"):
        PatchSource([images[0]], [], (2, 2))
    with pytest.raises(ConfigError, match="two or three sizes"):
        PatchSource([images[0]], None, (2, 0))
    with pytest.raises(ConfigError, match="share of foreground"):
        PatchSource([images[0]], None, (2, 2), foreground=2)
    with pytest.raises(ConfigError, match="batch size"):
        Stream(ArraySource(images), 0, seed=1, name="x")
    with pytest.raises(ConfigError, match="sampling weights"):
        Stream(ArraySource(images), 1, seed=1, name="x", weights=[0, 0, 0])


def ramp(shape: tuple[int, ...]) -> np.ndarray:
    """(1, *shape) in [0, 1], every voxel another value."""
    return np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(1, *shape)


@pytest.mark.parametrize("size", [(8, 8), (4, 8, 8)])
def test_patches_are_cut_from_image_and_mask_alike(size: tuple[int, ...]) -> None:
    shapes = [tuple(n + 3 + i for n in size) for i in range(2)]
    images = [ramp(shape) for shape in shapes]
    masks = [(image[0] * 250).astype(np.uint8) for image in images]
    source = PatchSource(images, masks, size, foreground=0.5)
    for n in range(20):
        patch, mask = source.fetch([0, 1], stream(1, n))
        assert (patch.shape, mask.shape) == ((2, 1, *size), (2, *size))
        assert np.array_equal((patch[:, 0] * 250).astype(np.uint8), mask)


def test_patches_reach_every_place() -> None:
    image = ramp((9, 9))
    source = PatchSource([image], None, (4, 4))
    corners = {float(source.fetch([0], stream(1, n))[0][0, 0, 0, 0]) for n in range(600)}
    assert corners == {float(v) for v in image[0, :6, :6].ravel()}


def test_small_images_are_padded_black_and_unjudged() -> None:
    image, mask = np.full((2, 3, 10, 4), 0.5, np.float32), np.ones((3, 10, 4), np.uint8)
    patch, labels = PatchSource([image], [mask], (6, 8, 8)).fetch([0], stream(1))
    inside = labels[0] != IGNORE
    assert inside.sum() == 3 * 8 * 4
    assert (patch[0, :, inside] == 0.5).all()
    assert (patch[0, :, ~inside] == -1).all()
    assert inside.any(axis=(1, 2)).tolist() == [False] * 2 + [True] * 3 + [False], "padded on both sides"


def test_foreground_is_found_as_often_as_asked_for() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[60, 3], mask[5:9, 50:54] = 2, 1
    mask[30:40] = IGNORE
    image = np.zeros((1, 64, 64), np.float32)
    for share in (0.0, 0.5, 1.0):
        source = PatchSource([image], [mask], (8, 8), foreground=share)
        found = Counter()
        for n in range(400):
            labels = source.fetch([0], stream(1, n))[1]
            found.update(int(v) for v in np.unique(labels) if v not in (0, IGNORE))
        hits = (found[1] + found[2]) / 400
        assert hits == pytest.approx(share, abs=0.08)
        if share == 1:
            assert found[2] / 400 == pytest.approx(0.5, abs=0.08), "classes count alike, however small"


def test_empty_masks_give_patches_too() -> None:
    source = PatchSource(
        [np.zeros((1, 9, 9), np.float32)], [np.zeros((9, 9), np.uint8)], (4, 4), foreground=1
    )
    assert source.fetch([0, 0], stream(1))[1].sum() == 0


def test_patches_resume_too() -> None:
    def batches() -> Stream:
        images = [ramp((12 + i, 11)) for i in range(5)]
        source = PatchSource(images, [np.zeros(i.shape[1:], np.uint8) for i in images], (6, 6))
        return Stream(source, 3, seed=1, name="train", augment=noise)

    whole = batches()
    assert [same(whole.at(n), batches().at(n)) for n in (0, 3, 21)] == [True] * 3
