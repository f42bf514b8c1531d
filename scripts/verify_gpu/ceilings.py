"""Prints what this GPU does at best, by torch: a copy in its memory and a product of bf16 matrices.

    ceilings.py [--repeat N]
"""
import argparse
import json
import statistics

import torch

COPIED_BYTES = 4 << 30
SIDE = 8192


def seconds_of(work, repeat: int) -> float:
    """Median between events; the first runs load and choose kernels."""
    for _ in range(3):
        work()
    seconds = []
    for _ in range(repeat):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) * 1e-3)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=20)
    repeat = parser.parse_args().repeat
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = seconds_of(lambda: target.copy_(source), repeat)
    source = target = None
    # Random operands: products of zeros draw less power and run faster.
    a, b = (torch.randn(SIDE, SIDE, device="cuda").to(torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    product = seconds_of(lambda: torch.mm(a, b, out=out), repeat)
    facts = torch.cuda.get_device_properties(0)
    print(json.dumps({"gpu": facts.name, "torch": torch.__version__,
                      "multiprocessors": facts.multi_processor_count,
                      "memory_bytes": facts.total_memory,
                      "copy_bytes_per_s": 2 * COPIED_BYTES / copy,
                      "bf16_flops_per_s": 2 * SIDE**3 / product}))


if __name__ == "__main__":
    main()
