"""What a head reads, in one word: "generator@w+", "generator+discriminator+image@w+", "encoder", ..."""

from dataclasses import dataclass
from typing import Literal, cast, get_args

from fewmask.synthesis.features import Source

Way = Literal["w", "w+", "pti", "encoder"]
"""How a slice becomes latents: one or one per layer, found by steps; one, in a generator that was tuned to
the training slices (pivotal tuning); in passes of an encoder."""


@dataclass(frozen=True)
class Reading:
    """The sources of a head's features, and how slices are inverted for the generator's."""

    sources: tuple[Source, ...]
    way: Way | None = None

    @classmethod
    def parse(cls, text: str) -> "Reading":
        """From "source+source@way"; raises `ValueError` with what is expected.

        The way belongs to the generator: it must be told with it, and only with it.
        """
        names, at, way = text.partition("@")
        sources = tuple(names.split("+"))
        strange = [name for name in sources if name not in get_args(Source)]
        if strange or len(set(sources)) < len(sources):
            raise ValueError(
                f"a head reads different ones of {', '.join(get_args(Source))}, joined by +; found {text!r}"
            )
        if ("generator" in sources) != bool(at) or (at and way not in get_args(Way)):
            raise ValueError(
                f"the generator, and nothing else, needs a way to invert: @{', @'.join(get_args(Way))}; "
                f"found {text!r}"
            )
        return cls(cast(tuple[Source, ...], sources), cast(Way, way) if at else None)

    @property
    def text(self) -> str:
        """As it is written in the settings."""
        return "+".join(self.sources) + (f"@{self.way}" if self.way else "")

    @property
    def generates(self) -> bool:
        """Whether it can label generated slices, whose latents are known; real ones have to be inverted."""
        return self.way is not None
