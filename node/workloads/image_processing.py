"""image_processing: decode, operate, encode with OpenCV; the pixels are those OpenCV itself would give.

JPEGs are turned upright by their EXIF orientation and keep one or three channels; PNG and WebP keep alpha, PNG
16 bits a sample too. What the result's format or an operation can't hold (alpha in a JPEG) is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mesh.kinds.image_processing import MAX_PIXELS, ImageProcessingPayload, Resize, fit
from node.workload import Context, InputFault, Output
from node.workloads.image_header import Header, read_header

if TYPE_CHECKING:
    import numpy as np


def run(payload: ImageProcessingPayload, context: Context) -> Output:
    """The processed image's bytes; info: width, height, channels, format, input_format, input_width, input_height.

    Raises: InputFault when `image` is no intact image or too large, or an operation would make it so.
    """
    import cv2

    cv2.setNumThreads(context.cores)
    data = context.read(payload.image, "image")
    header = read_header(data)
    image = _decode(data, header)
    del data
    steps = payload.steps
    for index, step in enumerate(steps):
        image = _apply(image, step)
        context.progress((index + 1) / (len(steps) + 1), step.op)
    name = payload.format or header.format
    encoded = _encode(image, name, payload.quality)
    info: dict[str, Any] = {
        "width": image.shape[1],
        "height": image.shape[0],
        "channels": _channels(image),
        "format": name,
        "input_format": header.format,
        "input_width": header.width,
        "input_height": header.height,
    }
    return Output(encoded, f"image/{name}", info)


def _channels(image: np.ndarray) -> int:
    return 1 if image.ndim == 2 else image.shape[2]


def _decode(data: bytes, header: Header) -> np.ndarray:
    import cv2
    import numpy as np

    mode = cv2.IMREAD_ANYCOLOR if header.format == "jpeg" else cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error:
        image = None
    size = {header.width, header.height}
    # Orientation may swap the sides; any other size than the header's is not the picture it announced.
    if image is None or {*image.shape[:2]} != size:
        raise InputFault("image", f"is a damaged {header.format.upper()} file")
    return image


def _apply(image: np.ndarray, step: Any) -> np.ndarray:
    import cv2

    if step.op == "resize":
        return _resize(image, step)
    if step.op == "blur":
        side = 2 * step.radius + 1
        return cv2.GaussianBlur(image, (side, side), 0)
    if step.op == "edges":
        return cv2.Canny(_eight_bits(_gray(image)), step.low, step.high)
    return _gray(image)


def _resize(image: np.ndarray, step: Resize) -> np.ndarray:
    import cv2

    height, width = image.shape[:2]
    new_width, new_height = fit((width, height), step)
    if new_width * new_height > MAX_PIXELS:
        field = "width" if step.width else "height"
        raise InputFault(field, f"would make an image of {new_width} x {new_height} pixels; that is too large")
    shrinks = new_width < width or new_height < height
    return cv2.resize(
        image, (new_width, new_height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def _gray(image: np.ndarray) -> np.ndarray:
    import cv2

    channels = _channels(image)
    if channels == 1:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY if channels == 4 else cv2.COLOR_BGR2GRAY)


def _eight_bits(image: np.ndarray) -> np.ndarray:
    return image if image.dtype.itemsize == 1 else (image >> 8).astype("uint8")


def _encode(image: np.ndarray, name: str, quality: int) -> bytes:
    """The file's bytes. Raises: RuntimeError when OpenCV can't write the format."""
    import cv2

    options = {
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
        "png": [],
    }[name]
    if name != "png":
        image = _eight_bits(image)
    if name == "webp" and max(image.shape[:2]) > 16383:
        raise InputFault("format", "can't be webp for an image with a side over 16383 pixels")
    ok, encoded = cv2.imencode(f".{name}", image, options)
    if not ok:
        raise RuntimeError(f"OpenCV could not write the image as {name}")
    return encoded.tobytes()
