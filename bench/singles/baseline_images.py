"""`python -m bench.singles.baseline_images WIDTH QUALITY OUT FILE…`: resize images with OpenCV alone, on one core."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2


def main() -> None:
    """Write each FILE into OUT, in the width WIDTH."""
    width, quality, out = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    cv2.setNumThreads(1)
    out.mkdir(exist_ok=True)
    for name in sys.argv[4:]:
        image = cv2.imread(name, cv2.IMREAD_ANYCOLOR)
        if image is None:
            sys.exit(f"{name} can't be read")
        height = round(image.shape[0] * width / image.shape[1])
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(out / Path(name).name), small, [cv2.IMWRITE_JPEG_QUALITY, quality])


if __name__ == "__main__":
    main()
