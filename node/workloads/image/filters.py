"""Operations on neighbouring pixels: blur, sharpen, edges, threshold, denoise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh.kinds.image_operations import Blur, Denoise, Edges, Sharpen, Threshold
from mesh.kinds.image_sizes import Misfit
from node.workloads.image.alpha import has_alpha, on_premultiplied, on_visible
from node.workloads.image.pixels import channels, eight_bits, gray, white

if TYPE_CHECKING:
    from node.workloads.image.pixels import Image

#: OpenCV's median filter supports larger radii with 8 bits only.
MAX_MEDIAN_RADIUS_16_BITS = 2


def blur(image: Image, step: Blur) -> Image:
    """Gaussian, median and box blur alpha too; bilateral keeps it. Raises: Misfit for a large median of 16 bits."""
    import cv2

    side = 2 * step.radius + 1
    if step.method == "gaussian":
        return on_premultiplied(image, lambda pixels: cv2.GaussianBlur(pixels, (side, side), step.sigma or 0))
    if step.method == "box":
        return on_premultiplied(image, lambda pixels: cv2.blur(pixels, (side, side)))
    if step.method == "median":
        if image.dtype.itemsize > 1 and step.radius > MAX_MEDIAN_RADIUS_16_BITS:
            problem = f"must be at most {MAX_MEDIAN_RADIUS_16_BITS} for median with 16 bits per sample"
            raise Misfit("radius", problem)
        done = on_visible(image, lambda colours: cv2.medianBlur(colours, side))
        if has_alpha(image):
            done[:, :, 3] = cv2.medianBlur(image[:, :, 3], side)
        return done
    return on_visible(image, lambda colours: _bilateral(colours, step, side))


def _bilateral(image: Image, step: Blur, side: int) -> Image:
    """16 bits use OpenCV's floating-point filter, with sigma_colour scaled to their range."""
    import cv2
    import numpy as np

    if image.dtype.itemsize == 1:
        return cv2.bilateralFilter(image, side, step.sigma_colour, step.sigma_space)
    done = cv2.bilateralFilter(image.astype(np.float32), side, step.sigma_colour * 257, step.sigma_space)
    return np.clip(np.rint(done), 0, white(image)).astype(image.dtype)


def sharpen(image: Image, step: Sharpen) -> Image:
    """(1 + amount) image - amount blurred, where they differ by more than the threshold; alpha is unchanged."""
    import cv2
    import numpy as np

    def work(colours: Image, blurred: Image) -> Image:
        sharp = cv2.addWeighted(colours, 1 + step.amount, blurred, -step.amount, 0)
        if step.threshold:
            small = cv2.absdiff(colours, blurred) <= step.threshold * (white(colours) // 255)
            np.copyto(sharp, colours, where=small)
        return sharp

    # The blur sees colours weighed by their alpha; alpha itself stays as it is.
    blurred = on_premultiplied(image, lambda pixels: cv2.GaussianBlur(pixels, (0, 0), step.sigma))
    if channels(image) < 4:
        return work(image, blurred)
    done = work(cv2.cvtColor(image, cv2.COLOR_BGRA2BGR), cv2.cvtColor(blurred, cv2.COLOR_BGRA2BGR))
    return cv2.merge([*cv2.split(done), image[:, :, 3]])


def edges(image: Image, step: Edges) -> Image:
    """The edges of the 8-bit brightness: one channel of 0 and 255."""
    import cv2

    return cv2.Canny(eight_bits(gray(image)), step.low, step.high, apertureSize=step.aperture, L2gradient=step.accurate)


def threshold(image: Image, step: Threshold) -> Image:
    """The thresholded 8-bit brightness: one channel of 0 and 255."""
    import cv2

    source = eight_bits(gray(image))
    kind = cv2.THRESH_BINARY_INV if step.invert else cv2.THRESH_BINARY
    if step.method == "adaptive":
        weights = cv2.ADAPTIVE_THRESH_MEAN_C if step.weights == "mean" else cv2.ADAPTIVE_THRESH_GAUSSIAN_C
        return cv2.adaptiveThreshold(source, 255, weights, kind, step.block, step.offset)
    if step.method == "otsu":
        kind |= cv2.THRESH_OTSU
    return cv2.threshold(source, step.value, 255, kind)[1]


def denoise(image: Image, step: Denoise) -> Image:
    """Non-local means: 8-bit colours in Lab, 16-bit colours by their absolute differences; alpha is unchanged."""
    import cv2

    def work(colours: Image) -> Image:
        sides = step.patch, step.window
        if colours.dtype.itemsize > 1:
            return cv2.fastNlMeansDenoising(colours, [step.strength * 257], None, *sides, cv2.NORM_L1)
        if channels(colours) == 1:
            return cv2.fastNlMeansDenoising(colours, None, step.strength, *sides)
        return cv2.fastNlMeansDenoisingColored(
            colours, None, step.strength, step.colour_strength or step.strength, *sides
        )

    return on_visible(image, work)
