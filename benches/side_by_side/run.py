#!/usr/bin/env python3
"""Cerebro beside PyTorch: the same job, the same Parquet files, in one run, as ratios.

    python3 benches/side_by_side/run.py [--runs 3] [--environment DIR] [--rows 100000]

The job is model selection as people do it: 16 multilayer perceptrons 100-256-256-10, SGD with
momentum 0.9, eight learning rates at batch sizes 64 and 256, three epochs, on 80,000 + 20,000 rows
of 100 features in 4 + 4 partitions, on two workers of one thread each. Its peers are PyTorch in one
process and a bare pool of two PyTorch processes. Programs take turns, so that a machine whose speed
drifts treats them alike; the figures are medians over the runs.

PyTorch and pyarrow are installed by pip into an environment of their own (the first time).
Needs a Rust toolchain, pip, and Linux (for /proc).
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from environment import HERE, ROOT, add_environment, program, python_with

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--runs", type=int, default=3, help="how often each program runs")
parser.add_argument("--rows", type=int, default=100_000, help="rows, a fifth of them for validation")
add_environment(parser)
parser.add_argument("--only", nargs="*", help="of the programs, only these: cerebro, one, pool")
options = parser.parse_args()

JOB = {
    "features": 100,
    "hidden": [256, 256],
    "classes": 10,
    "momentum": 0.9,
    "epochs": 3,
    "workers": 2,
    "configs": [
        {"learning_rate": rate, "batch_size": batch}
        for batch in (64, 256)
        for rate in (0.001, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
    ],
}


def processes_below(root):
    """The process `root` and all its descendants."""
    children = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = open(f"/proc/{entry.name}/stat").read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        process = queue.pop()
        found.append(process)
        queue += children.get(process, [])
    return found


def resident(root):
    """Bytes in memory of a process and its descendants; shared pages count once (PSS)."""
    total = 0
    for process in processes_below(root):
        try:
            for line in open(f"/proc/{process}/smaps_rollup"):
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


def measure(command):
    """Wall and CPU seconds, peak memory and what the program printed last, as JSON."""
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        child = subprocess.Popen(command, stdout=output, cwd=ROOT)
        peak, done = [0], threading.Event()

        def watch():
            while not done.wait(0.05):
                peak[0] = max(peak[0], resident(child.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begun
        done.set()
        watcher.join()
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            sys.exit(f"{command} ended with {child.returncode}")
        output.seek(0)
        printed = json.loads(output.read().decode().strip().splitlines()[-1])
    # wait4 counts the children that the program itself has waited for: the pool's processes too.
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "memory": peak[0], **printed}


ours = program("side-by-side")
with tempfile.TemporaryDirectory() as folder:
    job = pathlib.Path(folder) / "job.json"
    job.write_text(json.dumps(JOB))
    data = pathlib.Path(folder) / "data"
    subprocess.run([ours, "prepare", job, data, str(options.rows)], check=True)
    python = python_with(options.environment, ["torch", "numpy", "pyarrow"])
    programs = {
        "cerebro": [ours, "run", job, data],
        "one": [python, HERE / "pytorch_jobs.py", "one", job, data],
        "pool": [python, HERE / "pytorch_jobs.py", "pool", job, data, str(JOB["workers"])],
    }
    if options.only:
        programs = {name: command for name, command in programs.items() if name in options.only}
    runs = {name: [] for name in programs}
    for number in range(options.runs):
        for name, command in programs.items():
            print(f"run {number + 1} of {options.runs}: {name}", file=sys.stderr)
            runs[name].append(measure([str(part) for part in command]))

titles = {"cerebro": "Cerebro, 2 workers", "one": "PyTorch, one process", "pool": "PyTorch, pool of 2"}
medians = {
    name: {figure: statistics.median(run[figure] for run in measured) for figure in ("wall", "cpu", "memory")}
    for name, measured in runs.items()
}
print(f"{'':24}{'wall s':>9}{'CPU s':>9}{'peak MiB':>10}{'accuracy: best':>17}{'mean':>8}")
for name, measured in runs.items():
    accuracies = measured[-1]["accuracies"]
    figures = medians[name]
    print(f"{titles[name]:24}{figures['wall']:9.2f}{figures['cpu']:9.2f}{figures['memory'] / 2**20:10.0f}"
          f"{max(accuracies):17.4f}{statistics.mean(accuracies):8.4f}")
for peer in ("one", "pool"):
    if peer in medians and "cerebro" in medians:
        ratios = {figure: medians["cerebro"][figure] / medians[peer][figure] for figure in ("wall", "cpu", "memory")}
        gap = max(abs(a - b) for a, b in zip(runs["cerebro"][-1]["accuracies"], runs[peer][-1]["accuracies"]))
        print(f"Cerebro / {titles[peer]:22} wall {ratios['wall']:.2f}   CPU {ratios['cpu']:.2f}   "
              f"memory {ratios['memory']:.2f}   largest difference of accuracy {gap:.4f}")
if "one" in runs and "pool" in runs:
    noise = max(abs(a - b) for a, b in zip(runs["one"][-1]["accuracies"], runs["pool"][-1]["accuracies"]))
    print(f"PyTorch with one seed and with another: largest difference of accuracy {noise:.4f}")
for measured in runs.get("cerebro", [])[-1:]:
    print(f"Cerebro's utilisation (training and validation steps over workers x wall): {measured['utilisation']:.3f}")
