"""What the published networks were made with, in the words of our constructors.

Given are the arguments of the published constructors (StyleGAN2-ADA and StyleGAN3 code bases); what our
networks cannot do is refused in words instead of being left out.
"""

from collections.abc import Mapping
from typing import Any, Literal

from fewmask.core.errors import DataError

Kind = Literal["stylegan2", "stylegan3"]

WHOLE_BATCH = 1_000_000
"""A group of the minibatch standard deviation that no batch reaches: all images are one group."""

_PRECISION_ONLY = ("num_fp16_res", "fp16_channels_last", "fused_modconv_default", "freeze_layers")
"""Arguments that choose how to compute or what to train, not what is computed."""


class _Arguments:
    """Published arguments, taken one by one; what is left over at the end is unknown."""

    def __init__(self, given: Mapping[str, Any], where: str) -> None:
        self._left, self._where = dict(given), where

    def nested(self, name: str) -> "_Arguments":
        """The arguments of a part, handed on in a dictionary."""
        part = self._left.pop(name, None) or {}
        if not isinstance(part, dict):
            raise self.refuse(name, part, "a dictionary of arguments")
        return _Arguments(part, self._where)

    def unfold(self, name: str) -> None:
        """Treat the arguments in the dictionary `name` as if they had been given here."""
        self._left.update(self.nested(name)._left)

    def whole(self, name: str, default: int | None, low: int = 1, high: int = 2**20) -> int:
        """A whole number from `low` to `high`."""
        value = self._left.pop(name, default)
        if type(value) is not int or not low <= value <= high:
            raise self.refuse(name, value, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str, default: float) -> float:
        """A number above 0."""
        value = self._left.pop(name, default)
        if type(value) not in (int, float) or not 0 < value < 1e6:
            raise self.refuse(name, value, "a number above 0")
        return float(value)

    def limit(self, name: str, default: float | None) -> float | None:
        """A number above 0, or None."""
        if self._left.get(name, default) is None:
            self._left.pop(name, None)
            return None
        return self.number(name, default or 1.0)

    def only(self, name: str, *allowed: Any) -> Any:
        """One of `allowed`, the first if it is not given."""
        value = self._left.pop(name, allowed[0])
        if repr(value) not in map(repr, allowed):
            raise self.refuse(name, value, " or ".join(map(repr, allowed)))
        return value

    def done(self) -> None:
        """Nothing may be left, besides what only chooses the precision."""
        unknown = [name for name in self._left if name not in _PRECISION_ONLY]
        if unknown:
            raise self.refuse(str(unknown[0]), self._left[unknown[0]], "an argument that fewmask knows")

    def refuse(self, name: str, value: Any, expected: str) -> DataError:
        """The error for an argument that our networks cannot follow."""
        return DataError(
            "the published network was made with a setting that fewmask cannot follow",
            where=self._where,
            found=f"{name}={str(value)[:60]}",
            expected=f"{name}: {expected}",
            mend="Use a checkpoint of StyleGAN2 (skip generator, residual discriminator) or of StyleGAN3.",
        )


def generator_settings(
    arguments: Mapping[str, Any], kind: Kind, where: str, *, clamp: float | None = 256.0
) -> dict[str, Any]:
    """The settings of our generator, for `design.build_generator`.

    Args:
        arguments: of the published constructor.
        kind: which network.
        where: names the file, for errors.
        clamp: the limit of the activations where the arguments tell none: 256 as in StyleGAN3's code base.

    Raises:
        DataError: an argument that our networks cannot follow.
    """
    given = _Arguments(arguments, where)
    given.unfold("synthesis_kwargs")
    settings: dict[str, Any] = {
        "kind": kind,
        "z_dim": given.whole("z_dim", None),
        "w_dim": given.whole("w_dim", None),
        "resolution": given.whole("img_resolution", None, 16, 1024),
        "channels": given.whole("img_channels", None, 1, 1024),
        "channel_base": given.whole("channel_base", 32768),
        "channel_max": given.whole("channel_max", 512),
        "classes": given.whole("c_dim", 0, 0),
        "conv_clamp": given.limit("conv_clamp", clamp),
    }
    mapping = given.nested("mapping_kwargs")
    settings["mapping_layers"] = mapping.whole("num_layers", 8 if kind == "stylegan2" else 2, 1, 64)
    for name in ("embed_features", "layer_features"):
        mapping.only(name, None, settings["w_dim"])
    mapping.only("activation", "lrelu")
    mapping.number("lr_multiplier", 0.01)
    mapping.number("w_avg_beta", 0.998)
    mapping.done()
    if kind == "stylegan2":
        given.only("architecture", "skip")
        given.only("resample_filter", [1, 3, 3, 1])
        given.only("kernel_size", 3)
        given.only("activation", "lrelu")
        given.only("use_noise", True, False)
    else:
        settings.update(_alias_free(given))
    given.done()
    return settings


def _alias_free(given: _Arguments) -> dict[str, Any]:
    """What only StyleGAN3 has."""
    return {
        "num_layers": given.whole("num_layers", 14, 3, 64),
        "num_critical": given.whole("num_critical", 2, 0, 60),
        "first_cutoff": given.number("first_cutoff", 2.0),
        "first_stopband": given.number("first_stopband", 2**2.1),
        "last_stopband_rel": given.number("last_stopband_rel", 2**0.3),
        "margin_size": given.whole("margin_size", 10, 0, 256),
        "output_scale": given.number("output_scale", 0.25),
        "conv_kernel": given.only("conv_kernel", 3, 1),
        "filter_size": given.whole("filter_size", 6, 1, 64),
        "lrelu_upsampling": given.whole("lrelu_upsampling", 2, 1, 16),
        "use_radial_filters": given.only("use_radial_filters", False, True),
        "magnitude_ema_beta": given.number("magnitude_ema_beta", 0.999),
    }


def discriminator_settings(
    arguments: Mapping[str, Any], where: str, *, clamp: float | None = 256.0
) -> dict[str, Any]:
    """The settings of our discriminator, for `design.build_discriminator`; see `generator_settings`.

    Raises:
        DataError: an argument that our network cannot follow.
    """
    given = _Arguments(arguments, where)
    given.unfold("block_kwargs")
    settings: dict[str, Any] = {
        "resolution": given.whole("img_resolution", None, 16, 1024),
        "channels": given.whole("img_channels", None, 1, 1024),
        "channel_base": given.whole("channel_base", 32768),
        "channel_max": given.whole("channel_max", 512),
        "classes": given.whole("c_dim", 0, 0),
        "conv_clamp": given.limit("conv_clamp", clamp),
    }
    last = min(settings["channel_base"] // 4, settings["channel_max"])
    given.only("architecture", "resnet")
    given.only("cmap_dim", None, last, *(() if settings["classes"] else (0,)))
    given.only("resample_filter", [1, 3, 3, 1])
    given.only("activation", "lrelu")
    mapping = given.nested("mapping_kwargs")
    mapping.number("lr_multiplier", 0.01)
    if settings["classes"]:
        mapping.only("num_layers", 8)
        mapping.only("layer_features", None, last)
        mapping.only("embed_features", None, last)
        mapping.only("activation", "lrelu")
        mapping.done()
    epilogue = given.nested("epilogue_kwargs")
    channels = epilogue.only("mbstd_num_channels", 1, 0)
    group = epilogue.limit("mbstd_group_size", 4)
    settings["group"] = 0 if channels == 0 else WHOLE_BATCH if group is None else int(group)
    epilogue.only("activation", "lrelu")
    epilogue.done()
    given.done()
    return settings
