"""The dense operations of `scientific_computing` on a GPU, in PyTorch; the processor checks the results."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from node.executor.context import InputFault

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class NoGpu(ImportError):
    """This node has no GPU that PyTorch can use; require one with {"accelerator": "gpu"}."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


def gpu(dtype: str) -> Torch:
    """The GPU of this machine. Raises: NoGpu; ImportError without torch; InputFault for an unsupported `dtype`."""
    import torch

    if torch.cuda.is_available():
        return Torch("cuda", torch.cuda.get_device_name())
    if torch.backends.mps.is_available():
        if dtype == "float64":
            raise InputFault("dtype", "must be float32 on this GPU, which has no float64")
        return Torch("mps", "Apple GPU")
    raise NoGpu


class Torch:
    """`solve`, `product` and `round_trip` of NumPy arrays on a PyTorch device: (results, seconds).

    The seconds exclude transfers. Each operation runs once before the measurement, so that loading libraries and
    selecting kernels is not measured.
    """

    def __init__(self, device: str, name: str) -> None:
        self._device, self.name = device, name

    def solve(self, matrix: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, float]:
        """Solve `matrix @ x = right` by LU with partial pivoting: (x, seconds)."""
        import torch

        def work(a: Tensor, b: Tensor) -> tuple[Tensor]:
            return (torch.linalg.solve(a, b),)

        (solved,), run_s = self._timed(work, matrix, right)
        return solved, run_s

    def product(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, float]:
        """(`left @ right`, seconds)."""

        def work(a: Tensor, b: Tensor) -> tuple[Tensor]:
            return (a @ b,)

        (product,), run_s = self._timed(work, left, right)
        return product, run_s

    def round_trip(self, signal: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, float]:
        """(the transform of `signal` over `axes`, the inverse of that, seconds)."""
        import torch

        def there_and_back(here: Tensor) -> tuple[Tensor, Tensor]:
            there = torch.fft.fftn(here, dim=axes)
            return there, torch.fft.ifftn(there, dim=axes)

        (there, back), run_s = self._timed(there_and_back, signal)
        return there, back, run_s

    def _timed(self, work: Callable[..., tuple[Tensor, ...]], *arrays: np.ndarray) -> tuple[list[np.ndarray], float]:
        import torch

        inputs = [torch.from_numpy(array).to(self._device) for array in arrays]
        work(*inputs)
        self._finish()
        started = time.perf_counter()
        results = work(*inputs)
        self._finish()
        run_s = time.perf_counter() - started
        return [result.cpu().numpy() for result in results], run_s

    def _finish(self) -> None:
        """Wait for the device: calls return before it has finished."""
        import torch

        if self._device == "cuda":
            torch.cuda.synchronize()
        elif self._device == "mps":
            torch.mps.synchronize()
