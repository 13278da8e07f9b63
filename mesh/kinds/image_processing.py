"""The contract of `image_processing`: operations on one image or a batch.

In: JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF and HEIC. Out: the first six.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from mesh.kinds.base import Data, KindSpec, Need, Payload, Resources
from mesh.kinds.image_fit import EnlargeField, FitField, GravityField, check_fit, check_needs_fit
from mesh.kinds.image_operations import Blur, Edges, Grayscale, Operation, Resize, Side, Step

MAX_IMAGES = 1000

#: Names that are valid file names on every operating system: the ZIP of a batch holds files of these names.
_FILE_NAME = re.compile(r"[^\x00-\x1f<>:\"/\\|?*\x7f.][^\x00-\x1f<>:\"/\\|?*\x7f]{0,179}")


def _format(value: Any) -> Any:
    if isinstance(value, str):
        value = value.lower()
        return {"jpg": "jpeg", "tif": "tiff"}.get(value, value)
    return value


Format = Literal["jpeg", "png", "webp", "avif", "tiff", "bmp"]
#: Formats that are read only -> the format of the result when none is given.
READ_ONLY: dict[str, Format] = {"gif": "png", "heic": "jpeg"}
_List = Annotated[tuple[Data, ...], Field(max_length=MAX_IMAGES), Tag("list")]
_Names = Annotated[dict[str, Data], Field(max_length=MAX_IMAGES), Tag("names")]
Images = Annotated[_List | _Names, Discriminator(lambda value: "names" if isinstance(value, dict) else "list")]


class ImageProcessingPayload(Payload):
    """Payload of `image_processing`. The short forms (width, height, blur, …) run before `operations`."""

    image: Data | None = Field(default=None, description="image file, as base64 or a blob")
    images: Images | None = Field(
        default=None,
        validate_default=True,
        description="a batch instead of one image: list of files, or name -> file; the result is a ZIP of images and "
        "report.json",
    )
    width: Side | None = Field(default=None, description="short form of a resize: width, pixels")
    height: Side | None = Field(default=None, description="short form of a resize: height, pixels")
    keep_aspect: bool = Field(default=True, description="short form of a resize: keep_aspect")
    fit: FitField = "inside"
    gravity: GravityField = None
    enlarge: EnlargeField = False
    blur: int | None = Field(default=None, ge=1, le=250, description="short form of a blur: radius, pixels")
    grayscale: bool = Field(default=False, description="short form of grayscale")
    edges: bool = Field(default=False, description="short form of edges")
    operations: tuple[Operation, ...] = Field(
        default=(), max_length=50, description='operations, in order: {"op": "resize", "width": 320}, …'
    )
    format: Annotated[Format, BeforeValidator(_format)] | None = Field(
        default=None,
        description="format of the result; by default the input's, jpeg for HEIC and png for GIF",
    )
    quality: int = Field(default=90, ge=1, le=100, description="quality of a JPEG, WebP or AVIF result")
    background: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] = Field(
        default="#ffffff",
        description="colour under transparent pixels where alpha is dropped (JPEG, grayscale, …), #rrggbb",
    )
    colour: Literal["srgb", "keep"] = Field(
        default="srgb", description="srgb converts the colours to sRGB; keep leaves them, with their colour profile"
    )
    metadata: Literal["strip", "keep"] = Field(
        default="strip", description="keep writes EXIF (with GPS) and XMP to the result, where its format has them"
    )

    _fit = field_validator("fit")(check_fit)

    @field_validator("gravity")
    @classmethod
    def _placed(cls, value: str | None, info: ValidationInfo) -> str | None:
        return check_needs_fit(value, info, ("cover", "pad"))

    @field_validator("images")
    @classmethod
    def _one_of_two(cls, value: Any, info: ValidationInfo) -> Any:
        image = info.data.get("image", 0)
        if value is None and image is None:
            raise ValueError("must be given when image is not")
        if value is not None and image:
            raise ValueError("can't be given together with image")
        if value is not None and not value:
            raise ValueError("must have at least 1 image")
        if isinstance(value, dict) and not all(_FILE_NAME.fullmatch(name) for name in value):
            raise ValueError("must have file names as names: no folders, no leading dot, at most 180 characters")
        return value

    @property
    def batch(self) -> tuple[tuple[str, str, Any], ...]:
        """(field, name, data) of each of `images`. In a list, an image's name is its position, from 1."""
        if self.images is None:
            return ()
        if isinstance(self.images, dict):
            return tuple((f"images.{name}", name, data) for name, data in self.images.items())
        width = len(str(len(self.images)))
        return tuple((f"images.{index}", f"{index + 1:0{width}}", data) for index, data in enumerate(self.images))

    @property
    def steps(self) -> tuple[tuple[str, Step], ...]:
        """(prefix of the fields' names, operation) of all operations in order, the short forms first."""
        short: list[Step] = []
        if self.width is not None or self.height is not None:
            named = {
                name: getattr(self, name) for name in ("width", "height", "keep_aspect", "fit", "gravity", "enlarge")
            }
            short.append(Resize(op="resize", **named))
        if self.blur is not None:
            short.append(Blur(op="blur", radius=self.blur))
        if self.grayscale:
            short.append(Grayscale(op="grayscale"))
        if self.edges:
            short.append(Edges(op="edges"))
        listed = [(f"operations.{index}.", step) for index, step in enumerate(self.operations)]
        return (*(("", step) for step in short), *listed)


#: A PNG of 4 x 4 pixels.
_SMALL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAIAAAAmkwkpAAAAIklEQVQIHWPkYmXghwFGN0cbfhhgbKqt4IcBxn07t/DDAACOqgaVVvRhWAAAAABJ"
    "RU5ErkJggg=="
)

SPEC = KindSpec(
    name="image_processing",
    summary="Resize, crop, rotate, filter, recolour, watermark and convert an image or a batch.",
    payload=ImageProcessingPayload,
    resources=Resources(cores=1, memory_mb=2048),
    needs=tuple(Need(module, "vision") for module in ("cv2", "numpy", "PIL", "simplejpeg")),
    timeout_s=600.0,
    example={"image": _SMALL, "width": 8, "enlarge": True, "format": "png"},
    probe={"image": _SMALL, "width": 3000, "height": 3000, "enlarge": True, "blur": 5, "format": "jpeg"},
    gains=(Need("pillow_heif", "vision"),),
)
