#!/usr/bin/env python3
"""Times a private step of several processes: Opacus' distributed optimizer beside sfumato's ranks.

    tests/compare/opacus_ranks.py                          # small and cifar10, two processes
    tests/compare/opacus_ranks.py --case small --ranks 2 --json result.json

Both take a logical batch of --ranks physical ones, over Gloo on this machine, each process with
--threads threads; seconds from when all begin a step to when all end it, optimizer included, median
and minimum over --steps. Networks, packages and environment are those of opacus_step.py. Opacus adds
the gradients of processes as floats, tensor by tensor; the first process draws all the noise while the others
wait, and every process updates all weights.
"""
import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import opacus_step
from opacus_step import CASES, ROOT


def child(arguments) -> None:
    import torch
    import torch.distributed as dist
    from opacus import GradSampleModule
    from opacus.distributed import DifferentiallyPrivateDistributedDataParallel
    from opacus.optimizers import DistributedDPOptimizer

    torch.set_num_threads(arguments.threads)
    dist.init_process_group("gloo")
    case = CASES[arguments.case[0]]
    batch, draws = case["batch"], arguments.draws or case["draws"]
    network = opacus_step.make_network(case).train()
    network = DifferentiallyPrivateDistributedDataParallel(network)
    network = GradSampleModule(network, batch_first=True, loss_reduction="mean")
    # Its mean over processes is that of the whole batch where each expects its share.
    optimizer = DistributedDPOptimizer(torch.optim.Adam(network.parameters(), lr=1e-4),
                                       noise_multiplier=1.0, max_grad_norm=1.0,
                                       expected_batch_size=batch)
    shape = (batch * draws, case["network"]["in_channels"], *2 * [case["network"]["sample_size"]])

    def step() -> None:
        sample, target = torch.randn(shape), torch.randn(shape)
        timestep = torch.randint(0, 1000, (batch * draws,))
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.mse_loss(network(sample, timestep).sample, target).backward()
        if draws > 1:
            for p in network.parameters():
                p.grad_sample = p.grad_sample.view(batch, draws, *p.shape).mean(dim=1)
        optimizer.step()

    seconds = []
    for _ in range(arguments.warmup + arguments.steps):
        dist.barrier()
        start = time.perf_counter()
        step()
        dist.barrier()
        seconds.append(time.perf_counter() - start)
    if dist.get_rank() == 0:
        print("RESULT " + json.dumps(seconds[arguments.warmup:]))
    dist.destroy_process_group()


def in_processes(command: list, arguments) -> str:
    """What the first of them prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = str(arguments.threads)
    started = []
    for rank in range(arguments.ranks):
        environment = os.environ | {
            "RANK": str(rank), "WORLD_SIZE": str(arguments.ranks), "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(arguments.ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        started.append(subprocess.Popen(list(map(str, command)), env=environment, text=True,
                                        stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL))
    text, _ = started[0].communicate()
    statuses = [each.wait() for each in started]
    if any(statuses):
        sys.exit(f"{command[0]} ended with {statuses}")
    return text


def compare(case: str, python: Path, arguments) -> dict:
    draws = arguments.draws or CASES[case]["draws"]
    batch = CASES[case]["batch"]
    said = in_processes([python, "-W", "ignore", __file__, "--child", "--case", case, "--threads",
                         arguments.threads, "--steps", arguments.steps, "--warmup", arguments.warmup,
                         "--draws", draws], arguments)
    opacus = json.loads(said[said.index("RESULT ") + len("RESULT "):])
    ours = json.loads(in_processes(
        [arguments.sfumato, "bench", "ranks", "--case", case, "--examples", batch, "--draws", draws,
         "--batch", batch * arguments.ranks, "--threads", arguments.threads, "--repeat", arguments.steps,
         "--json"], arguments))
    result = {"case": case, "ranks": arguments.ranks, "threads": arguments.threads,
              "batch": batch * arguments.ranks, "draws": draws,
              "opacus_s": {"min": min(opacus), "median": statistics.median(opacus)},
              "sfumato_s": {"min": ours["together"]["min_s"], "median": ours["together"]["median_s"]},
              "sfumato_exchange_s": ours["exchange"]["median_s"]}
    result["ratio"] = {each: result["opacus_s"][each] / result["sfumato_s"][each]
                       for each in ("min", "median")}
    print(f"{case}: {arguments.ranks} processes of {batch} images, K = {draws}: Opacus "
          f"{result['opacus_s']['median']:.3f} s, sfumato {result['sfumato_s']['median']:.3f} s "
          f"({result['ratio']['median']:.2f} times as fast by medians, {result['ratio']['min']:.2f} by minima)",
          flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=["small", "cifar10"])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--draws", type=int, default=0, help="default: the case's")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--sfumato", type=Path, default=ROOT / "build/release/sfumato")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments)
    python = opacus_step.make_environment(ROOT / "build/opacus-venv")
    results = [compare(case, python, arguments) for case in arguments.case or ["small", "cifar10"]]
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))
    return None


if __name__ == "__main__":
    main()
