"""LPIPS from a file that the user brings."""

from pathlib import Path

from fewmask.core.errors import RunError
from fewmask.networks.lpips import LpipsNetwork, published_names
from fewmask.objectives.perceptual import LpipsDistance
from fewmask.training.checkpoint import read_tensors

MEND = (
    "Make the file where the package lpips is installed: save_file({k: v.clone() for k, v in "
    "lpips.LPIPS(net='alex').state_dict().items()}, 'lpips-alex.safetensors')"
)


def read_lpips(path: Path) -> LpipsDistance:
    """The distance with the weights in a safetensors file, named as the published ones.

    Raises:
        RunError: the file is missing, cut off or damaged, or holds other weights.
    """
    tensors = read_tensors(path)
    network = LpipsNetwork()
    own = network.state_dict()
    names = published_names()
    wrong = [
        theirs
        for ours, theirs in names.items()
        if theirs not in tensors or tensors[theirs].numel() != own[ours].numel()
    ]
    if wrong:
        raise RunError(
            "does not hold the weights of LPIPS on AlexNet",
            where=str(path),
            found=f"{len(wrong)} missing or of another shape: {', '.join(wrong[:3])}",
            mend=MEND,
        )
    kept = {ours: tensors[theirs].reshape(own[ours].shape).float() for ours, theirs in names.items()}
    network.load_state_dict({**own, **kept})
    return LpipsDistance(network.eval().requires_grad_(False))
