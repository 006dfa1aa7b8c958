"""Reader of image files: a directory for each class, or the columns of a Parquet file."""

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mlp_tape.data import allocation
from mlp_tape.data.contents import Array, Contents, Reading
from mlp_tape.data.readers import kinds
from mlp_tape.errors import DataError
from mlp_tape.system.formatting import count

if TYPE_CHECKING:
    from PIL.Image import Image

EXIF_ORIENTATION = 0x0112
GREY = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N", "I")
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")
Files = Iterable[tuple[str, Path | io.BytesIO]]  # name and content


class Part(Protocol):
    """Image files of a part, which are read twice: first their headers, then their pixels."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[str, Path | io.BytesIO]]: ...


@dataclass
class Survey:
    """What the headers of image files say: sizes (height, width) with their numbers, and how many are how."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    n_color: int = 0
    n_deep: int = 0
    n_transparent: int = 0
    n_frames: int = 0


def read(files: Mapping[str, Sequence[tuple[Path, str]]], reading: Reading, source: Path) -> Contents:
    """Reads the image files of each part, given with the names of their classes.

    Raises:
        DataError: an image is damaged, or they have different sizes and `image_size` is not set.
    """
    parts = {part: [(str(path), path) for path, _ in pairs] for part, pairs in files.items()}
    stacked, remarks = stack(parts, reading, source)
    labels = {part: np.array([label for _, label in pairs]) for part, pairs in files.items()}
    return Contents({part: (stacked[part], labels[part]) for part in files}, source, remarks=tuple(remarks))


def stack(parts: Mapping[str, Part], reading: Reading, source: Path) -> tuple[dict[str, Array], list[str]]:
    """Reads image files of one size and mode.

    Returns:
        Images of each part, uint8 or uint16 [n,h,w] or uint8 [n,h,w,3], and remarks.
    """
    survey = Survey()
    for files in parts.values():
        _survey(files, survey)
    if reading.image_size is None and len(survey.sizes) > 1:
        listed = ", ".join(f"{h}x{w} ({n:,})" for (h, w), n in survey.sizes.most_common(4))
        height, width = survey.sizes.most_common(1)[0][0]
        raise DataError(
            f"{source}: the images have {len(survey.sizes)} sizes, height x width: {listed}"
            f"{', ...' if len(survey.sizes) > 4 else ''}",
            f"type dataset.image_size=[{height},{width}] to resize them",
        )
    size = reading.image_size or next(iter(survey.sizes))
    is_color = survey.n_color > 0 if reading.image_mode is None else reading.image_mode == "color"
    n = sum(survey.sizes.values())
    is_deep = not is_color and survey.n_deep == n
    stacked = {}
    for part, files in parts.items():
        shape = (len(files), *size, 3) if is_color else (len(files), *size)
        stacked[part] = allocation.allocate(shape, np.uint16 if is_deep else np.uint8, str(source))
        for image, (name, file) in zip(stacked[part], files, strict=True):
            image[...] = _pixels(name, file, size, is_color, is_deep)
    return stacked, _remarks(survey, n, size, is_color, is_deep)


def _remarks(survey: Survey, n: int, size: tuple[int, int], is_color: bool, is_deep: bool) -> list[str]:
    remarks = []
    if list(survey.sizes) != [size]:
        remarks.append(f"images of {count(len(survey.sizes), 'size')} are resized to {size[0]}x{size[1]}")
    if 0 < survey.n_color < n:
        remarks.append(
            f"{survey.n_color:,} of {n:,} images are in color, read as {'color' if is_color else 'grey'}"
        )
    elif survey.n_color and not is_color:
        remarks.append("images in color are read as grey")
    if survey.n_deep and not is_deep:
        remarks.append(f"{count(survey.n_deep, 'image')} of 16 bits are reduced to 8 bits")
    if survey.n_transparent:
        remarks.append(f"transparent pixels of {count(survey.n_transparent, 'image')} are white")
    if survey.n_frames:
        remarks.append(f"only the first frame of {count(survey.n_frames, 'image')} with several is used")
    return remarks


def _survey(files: Files, survey: Survey) -> None:
    """Reads the headers of image files."""
    for name, file in files:
        with _opened(name, file) as image:
            height, width = image.height, image.width
            if image.getexif().get(EXIF_ORIENTATION, 1) >= 5:  # turned by 90 degrees
                height, width = width, height
            survey.sizes[height, width] += 1
            survey.n_color += _is_color(image)
            survey.n_deep += image.mode in DEEP
            survey.n_transparent += image.has_transparency_data
            survey.n_frames += getattr(image, "n_frames", 1) > 1


def _is_color(image: "Image") -> bool:
    if image.mode not in ("P", "PA"):
        return image.mode not in GREY
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
    return bool((palette != palette[:, :1]).any())


def _pixels(
    name: str, file: Path | io.BytesIO, size: tuple[int, int], is_color: bool, is_deep: bool
) -> Array:
    """Reads an image upright, on white, of a size and mode."""
    from PIL import Image, ImageOps

    with _opened(name, file) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode in DEEP:
            deep = np.asarray(image).astype(np.int64)
            if deep.max(initial=0) > 65535 or deep.min(initial=0) < 0:
                raise ValueError("it has values beyond 16 bits")
            image = Image.fromarray(deep.astype(np.float32) if is_deep else (deep // 257).astype(np.uint8))
        elif image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        if not is_deep:
            image = image.convert("RGB" if is_color else "L")
        if (image.height, image.width) != size:
            image = image.resize(size[::-1], Image.Resampling.BILINEAR)  # averages when it reduces
        pixels = np.asarray(image)
        return np.rint(pixels).astype(np.uint16) if is_deep else pixels


@contextlib.contextmanager
def _opened(name: str, file: Path | io.BytesIO) -> "Iterator[Image]":
    """Opens an image; what Pillow raises within the block becomes an error that names it."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(file, io.BytesIO):
        file.seek(0)
    try:
        # Pillow warns about metadata that is not used
        with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
            if image.mode == "F":
                raise ValueError("its pixels are floats, whose largest value is not known")
            yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:
        if isinstance(file, Path) and (kind := kinds.kind(file)) not in ("image", "unknown", "text"):
            raise kinds.refusal(file, kind) from error
        raise DataError(f"{name} is damaged, or no image", "replace or remove it") from error
    except Exception as error:  # Pillow does not document what damaged images raise
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(f"{name} cannot be read: {first}", "replace or remove it") from error
