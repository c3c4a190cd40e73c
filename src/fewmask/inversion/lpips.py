"""LPIPS from files that the user brings."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from fewmask.core.errors import RunError
from fewmask.data.torchfile import read_torch
from fewmask.networks.lpips import Backbone, LpipsNetwork, classifier_names, published_names
from fewmask.objectives.perceptual import LpipsDistance
from fewmask.training.checkpoint import read_tensors

MEND = (
    "Make the file where the package lpips is installed: save_file({k: v.clone() for k, v in "
    "lpips.LPIPS(net='alex').state_dict().items()}, 'lpips-alex.safetensors'). Or name a folder with the two "
    "files that are published: the classifier's weights (alexnet or vgg16, .pth) and LPIPS's own (alex.pth "
    "or vgg.pth)."
)
SUFFIXES = (".safetensors", ".pth", ".pt")


def read_lpips(path: Path) -> LpipsDistance:
    """The distance on AlexNet or VGG-16, whichever the weights are for.

    Args:
        path: a file of tensors named as the package lpips names them (safetensors, or torch's .pth, read
            without running it), or a folder of such files, where the convolutions may also have the names of
            a torchvision classifier.

    Raises:
        RunError: a file is missing, cut off or damaged, or the files hold other weights.
        DataError: a .pth that is damaged or asks for more than tensors.
    """
    tensors: dict[str, Tensor] = {}
    for file in _files(path):
        tensors |= _tensors(file)
    network = LpipsNetwork(_backbone(tensors))
    own = network.state_dict()
    published, classifier = published_names(network.backbone), classifier_names(network.backbone)
    found = {
        ours: tensors.get(theirs, tensors.get(classifier.get(ours, theirs)))
        for ours, theirs in published.items()
    }
    kept = {
        ours: tensor.reshape(own[ours].shape).float()
        for ours, tensor in found.items()
        if tensor is not None and tensor.numel() == own[ours].numel()
    }
    wrong = [published[ours] for ours in found if ours not in kept]
    if wrong:
        raise RunError(
            "does not hold the weights of LPIPS on AlexNet or VGG-16",
            where=str(path),
            found=f"{len(wrong)} missing or of another shape: {', '.join(wrong[:3])}",
            mend=MEND,
        )
    network.load_state_dict({**own, **kept})
    return LpipsDistance(network.eval().requires_grad_(False))


def checksums(path: Path) -> dict[str, str]:
    """SHA-256 of every file that `read_lpips` reads, by name: for the record of a run."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in _files(path)}


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix not in (".pth", ".pt"):
        return read_tensors(path)
    value = read_torch(path)
    arrays = value.items() if isinstance(value, dict) else ()
    return {str(name): torch.from_numpy(array) for name, array in arrays if hasattr(array, "dtype")}


def _backbone(tensors: dict[str, Tensor]) -> Backbone:
    """VGG-16 has a first kernel of 3 pixels, AlexNet of 11."""
    first = tensors.get("net.slice1.0.weight", tensors.get("features.0.weight"))
    return "vgg" if first is not None and first.ndim == 4 and first.shape[-1] == 3 else "alex"
