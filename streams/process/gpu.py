"""The memory of NVIDIA's GPUs, as their driver tells it; nothing where there is no driver."""

import ctypes
from functools import cache

_DRIVER = "libnvidia-ml.so.1"


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


@cache
def _driver() -> ctypes.CDLL | None:
    """NVIDIA's management library, loaded once and never given back; None where it is not, or will not start."""
    try:
        library = ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None


def memory_bytes() -> list[tuple[int, int, int]]:
    """Number, used and total bytes of each GPU that this process may see."""
    if (library := _driver()) is None:
        return []
    count, found = ctypes.c_uint(), []
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return []
    for number in range(count.value):
        device, memory = ctypes.c_void_p(), _Memory()
        if library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)) != 0:
            continue
        if library.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) == 0:
            found.append((number, memory.used, memory.total))
    return found
