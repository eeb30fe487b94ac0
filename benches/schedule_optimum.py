#!/usr/bin/env python3
"""How near to the exact optimum is the scheduler where the lower bound is not tight?

    python3 benches/schedule_optimum.py [--seconds 30] [--instances FILE] [--environment DIR]

Takes the jobs of the scheduler's grid that miss the aim (mean 1.01, worst 1.05 of the bound) under
the default policy, and has CP-SAT schedule them: an open shop of trials and workers, one epoch
after the other. CP-SAT knows every time beforehand; the scheduler learns the workers' speeds while
it runs. Where CP-SAT does not come to an end within the time, its proven bound counts, which is to
the scheduler's disadvantage.

Prints for each job makespan over max(longest trial, busiest worker) and over the optimum: mean and
worst of all seeds. Installs ortools by pip into an environment of its own (the first time); needs a
Rust toolchain and pip. --instances takes the file that `simulate --grid --instances FILE` wrote.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benches" / "side_by_side"))

from environment import python_with  # noqa: E402

# CP-SAT counts in whole numbers: so many of them make a second of the simulation.
TICKS = 10_000
# Schedules this close to the bound are not worth a proof.
TIGHT = 1.0005

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--seconds", type=float, default=30, help="time for each seed of each job")
parser.add_argument("--threads", type=int, default=2, help="threads of CP-SAT")
parser.add_argument("--instances", type=pathlib.Path, help="what `simulate --grid --instances` wrote")
parser.add_argument("--environment", type=pathlib.Path, default=ROOT / "target" / "schedule-optimum-python",
                    help="where ortools is, or is to be installed")


def simulated():
    """The jobs, from the grid as it is now."""
    path = ROOT / "target" / "schedule-optimum.json"
    path.parent.mkdir(exist_ok=True)
    command = ["cargo", "run", "--release", "-p", "cerebro-core", "--no-default-features", "--example", "simulate",
               "--", "--grid", "--instances", path]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return path


def optimum(times, epochs, bound, makespan, options):
    """The shortest makespan that a schedule may have, in seconds, and whether it is proven exact.

    times[trial][worker] is what one unit takes.
    """
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    ticks = [[max(1, round(time * TICKS)) for time in trial] for trial in times]
    workers = range(len(times[0]))
    horizon = int(makespan * TICKS) + len(times) * len(times[0]) * epochs
    # Rounding may take half a tick from each unit of the longest chain.
    least = max(0, int(bound * TICKS) - max(len(times), len(times[0])) * epochs)
    last = model.new_int_var(least, horizon, "makespan")
    on_worker = [[] for _ in workers]
    for trial, row in enumerate(ticks):
        of_trial, before = [], None
        for epoch in range(epochs):
            begins = model.new_int_var(0, horizon, "") if epoch else None
            ends = model.new_int_var(0, horizon, "")
            for worker in workers:
                start = model.new_int_var(0, horizon - row[worker], "")
                unit = model.new_fixed_size_interval_var(start, row[worker], f"{trial} {epoch} {worker}")
                of_trial.append(unit)
                on_worker[worker].append(unit)
                model.add(start + row[worker] <= ends)
                if epoch:
                    model.add(start >= begins)
            if epoch:
                model.add(begins >= before)
            before = ends
        model.add_no_overlap(of_trial)
        model.add(before <= last)
    for units in on_worker:
        model.add_no_overlap(units)
    model.minimize(last)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = options.seconds
    solver.parameters.num_workers = options.threads
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return bound, False
    # At least the bound, which rounding may have cut.
    return max(bound, solver.best_objective_bound / TICKS), status == cp_model.OPTIMAL


def mean_and_worst(ratios):
    return f"{sum(ratios) / len(ratios):.3f} / {max(ratios):.3f}"


def main():
    options = parser.parse_args()
    python = python_with(options.environment, ["ortools"])
    if pathlib.Path(sys.prefix).resolve() != options.environment.resolve():
        sys.exit(subprocess.run([python, __file__, *sys.argv[1:]]).returncode)
    jobs = json.loads((options.instances or simulated()).read_text())
    print("| cluster | epochs | sigma | trials x workers | over the bound | over the optimum | proven exact |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for job in jobs:
        over_bound, over_optimum, exact = [], [], 0
        for run in job["runs"]:
            makespan, bound = run["makespan_seconds"], run["bound_seconds"]
            best, proven = bound, True
            if makespan > bound * TIGHT:
                best, proven = optimum(run["unit_seconds"], job["epochs"], bound, makespan, options)
            over_bound.append(makespan / bound)
            over_optimum.append(makespan / best)
            exact += proven
        name = "uneven" if job["uneven"] else "alike"
        print(f"| {name} | {job['epochs']} | {job['sigma']:.1f} | {job['trials']} x {job['workers']} "
              f"| {mean_and_worst(over_bound)} | {mean_and_worst(over_optimum)} | {exact} of {len(job['runs'])} |",
              flush=True)


main()
