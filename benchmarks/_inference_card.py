"""What a device can compute, and what a network asks of it."""

from __future__ import annotations

import time
from typing import Any

TFLOPS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L4": 121.0,
    "T4": 65.0,
    "V100": 125.0,
    "4090": 165.2,
    "3090": 71.0,
}
"""Peak of dense bfloat16 (T4, V100: float16) products in TFLOP/s, by what the card is called; from
NVIDIA's data sheets."""


def peak(device: str, precision: str, threads: int) -> tuple[float, str]:
    """(TFLOP/s of the device, where the number is from): a data sheet, or the best of products."""
    import torch

    if device == "cuda" and precision == "bfloat16":
        name = torch.cuda.get_device_name()
        for part, tflops in TFLOPS.items():
            if part in name:
                return tflops, f"data sheet of {name}"
    torch.set_num_threads(threads)
    edge = 8192 if device == "cuda" else 2048
    a = torch.randn(edge, edge, device=device).to(getattr(torch, precision))
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * edge**3 / best / 1e12, f"best of products of {edge}² matrices"


def flops(predictor: Any, patch: int) -> int:
    """Floating-point operations of one patch; a multiplication and an addition are two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        predictor.module.cpu().eval()(torch.zeros(1, len(predictor.means), patch, patch))
    return int(counter.get_total_flops())
