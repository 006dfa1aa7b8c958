"""How the values of images are scaled: `(x - offset) / divisor`."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scale:
    """An offset and a divisor of the values of an image.

    Attributes:
        divisor: one number for all values, or one for each, [d]; not 0.
        offset: subtracted first; one number, or one for each value, [d]. Empty for none.
    """

    divisor: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Returns `scale` and `offset`, each a number or a list, as in `network.json`."""
        return {"scale": _plain(self.divisor), "offset": _plain(self.offset or (0.0,))}

    @classmethod
    def of_json(cls, scale: float | list[float], offset: float | list[float] = 0.0) -> "Scale":
        """Returns the scale of which `as_json` made the arguments."""
        divisor, subtracted = (
            tuple(each) if isinstance(each, list) else (float(each),) for each in (scale, offset)
        )
        return cls(divisor, subtracted if any(subtracted) else ())

    def __str__(self) -> str:
        """Returns what is done, such as `divided by 255`."""
        if self.offset:
            return "standardized by mean and standard deviation" + (
                " of each column" if len(self.offset) > 1 else ""
            )
        return "unscaled" if self.divisor == (1.0,) else f"divided by {self.divisor[0]:g}"


def _plain(values: tuple[float, ...]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)
