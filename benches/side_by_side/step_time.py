#!/usr/bin/env python3
"""What a training step costs beside PyTorch: the same networks, the same values, in one run.

    python3 benches/side_by_side/step_time.py [--nets NET...] [--threads 1 2] [--rounds 9] [--json FILE]

PyTorch writes each network to an ONNX file, which Cerebro trains. Cerebro, PyTorch as it is
(eager) and PyTorch compiled take turns in rounds of some steps each, so that a machine whose speed
drifts treats them alike; the ratios are medians over the rounds, the times are the best ones.

For each network the lower bound of a step is told too: the time of its matrix products at the speed
of a large product, measured in the same run, or that of its least memory traffic at the speed of a
large copy, whichever is longer, and how many times as long the step takes.

PyTorch is installed by pip into an environment of its own (the first time). Needs a Rust toolchain,
pip, a C++ compiler for PyTorch's compiled mode, and Linux (for /proc).
"""

import argparse
import json
import os
import pathlib
import select
import signal
import statistics
import subprocess
import sys
import tempfile

from environment import HERE, add_environment, program, python_with

NETS = {
    "mlp-small-sgd": ("MLP 692-100-1, batch 32, SGD", 0.55),
    "mlp-small-adam": ("MLP 692-100-1, batch 32, Adam", 0.55),
    "mlp-large-sgd": ("MLP 784-1024-1024-10, batch 256, SGD", 0.55),
    "mlp-large-adam": ("MLP 784-1024-1024-10, batch 256, Adam", 0.55),
    "cnn": ("residual CNN 3x32x32, batch 64", 1.0),
    "transformer": ("transformer encoder d128 L2 seq64, batch 32", 0.58),
    "tabular": ("18 embeddings, dense 1000-1000-500-1, batch 64", 0.50),
    "mbconv": ("depthwise MBConv 3x32x32, batch 64", None),
    "lstm": ("LSTM 32-128 seq64, batch 32", None),
    "gru": ("GRU 32-128 seq64, batch 32", None),
    "rnn": ("RNN 32-128 seq64, batch 32", None),
}
# Of the sizes that are in use: each with the package that has it. Only those asked for by name.
LARGE = {
    "resnet50": ("ResNet-50 3x224x224, batch 4, SGD", "torchvision"),
    "convnext-tiny": ("ConvNeXt-T 3x224x224, batch 4, SGD", "torchvision"),
    "vit-b-16": ("ViT-B/16 3x224x224, batch 2, Adam", "torchvision"),
    "bert-base": ("BERT base seq64, batch 4, Adam", "transformers"),
    "gpt2": ("GPT-2 seq64, batch 2, Adam", "transformers"),
}
MEMORY = ("cnn", "transformer", *LARGE)
OURS, EAGER, COMPILED = "Cerebro", "PyTorch", "PyTorch compiled"
# Two implementations that add in other orders: what a short run of float32 may differ by.
LOSS_TOLERANCE = 2e-3

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--nets", nargs="*", default=list(NETS), choices=[*NETS, *LARGE], metavar="NET",
                    help=f"only these of {', '.join(NETS)}, and of {', '.join(LARGE)}, which take minutes")
parser.add_argument("--threads", nargs="*", type=int, default=[1, 2], help="with so many threads")
parser.add_argument("--rounds", type=int, default=9, help="turns of each program")
parser.add_argument("--seconds", type=float, default=0.5, help="how long a turn is, about")
parser.add_argument("--no-compiled", action="store_true", help="leave PyTorch's compiled mode out")
parser.add_argument("--compile-seconds", type=float, default=300,
                    help="leave the compiled mode of a network out that is not compiled within so many seconds")
parser.add_argument("--only-steps", action="store_true", help="leave memory, creation and switch out")
parser.add_argument("--json", type=pathlib.Path, help="write all figures there")
add_environment(parser)
options = parser.parse_args()


def say(text):
    print(text, file=sys.stderr, flush=True)


class Worker:
    """A program that answers requests, a line each."""

    def __init__(self, name, command):
        self.name = name
        self.command = [str(part) for part in command]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        start_new_session=True)

    def ask(self, *request, seconds=None):
        """The answer; None where `seconds` are given and there is none within them, or an error."""
        print(*request, file=self.process.stdin, flush=True)
        # It answers one line at a time, so that nothing is buffered before the next request.
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        if seconds is None:
            sys.exit(f"{self.name} ended at the request {' '.join(map(str, request))}")
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.start()
        return None

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Programs:
    def __init__(self, folder):
        self.folder = folder
        self.ours = program("step-time")
        packages = {package for net, (_, package) in LARGE.items() if net in options.nets}
        self.python = python_with(options.environment, ["torch", "numpy", "onnx", *sorted(packages)])

    def export(self):
        nets = {*options.nets, "mlp-small-sgd"}
        subprocess.run([self.python, "-W", "ignore", HERE / "nets.py", "export", self.folder, *nets], check=True,
                       stdout=subprocess.DEVNULL)

    def worker(self, name, threads):
        if name == OURS:
            return Worker(name, [self.ours, self.folder, threads])
        mode = "compile" if name == COMPILED else "eager"
        return Worker(name, [self.python, "-W", "ignore", HERE / "nets.py", "work", self.folder, threads, mode])

    def once(self, name, threads, *request):
        worker = self.worker(name, threads)
        answer = worker.ask(*request)
        worker.close()
        return answer


def names():
    return [OURS, EAGER] + ([] if options.no_compiled else [COMPILED])


def step_times(programs, threads):
    started = {name: programs.worker(name, threads) for name in names()}
    peaks, results = {}, {}
    for net in options.nets:
        workers = dict(started)
        say(f"{net}, {threads} thread(s)")
        ours, theirs = (workers[name].ask("losses", net)["losses"] for name in (OURS, EAGER))
        # From the third step on, deep networks that normalize differ so from themselves when a weight's last bit does.
        compared = None if net in NETS else 2
        worst = max(abs(a - b) / abs(b) for a, b in zip(ours[:compared], theirs))
        if worst > LOSS_TOLERANCE:
            sys.exit(f"{net}: the losses are {ours} and {theirs}: not the same training")
        for name, worker in list(workers.items()):
            limit = options.compile_seconds if name == COMPILED else None
            if worker.ask("steps", net, 4, seconds=limit) is None:
                say(f"{net}: PyTorch did not compile it within {limit:.0f} s, or failed")
                del workers[name]
        counts = {name: max(4, 4 * round(options.seconds / worker.ask("steps", net, 4)["seconds"] / 4))
                  for name, worker in workers.items()}
        rounds = []
        for _ in range(options.rounds):
            rounds.append({name: worker.ask("steps", net, counts[name])["seconds"] for name, worker in workers.items()})
        # Measured again beside every network, since other programs may have the machine for a while.
        found = workers[EAGER].ask("peaks")
        peaks = {what: max(peak, peaks.get(what, 0.0)) for what, peak in found.items()}
        results[net] = {
            "rounds": rounds,
            "loss_difference": worst,
            "best": {name: min(turn[name] for turn in rounds) for name in workers},
            "ratio": {name: statistics.median(turn[OURS] / turn[name] for turn in rounds)
                      for name in workers if name != OURS},
            "work": workers[EAGER].ask("work", net),
        }
    for result in results.values():
        result["bound"] = bound(result["work"], peaks)
    for worker in started.values():
        worker.close()
    return {"peaks": peaks, "nets": results}


def bound(work, peaks):
    products, traffic = work["flops"] / peaks["flops"], work["bytes"] / peaks["bytes"]
    return {"seconds": max(products, traffic), "of": "products" if products >= traffic else "memory",
            "products": products, "memory": traffic}


def table(threads, measured):
    peaks = measured["peaks"]
    print(f"\n{threads} thread(s); a large product runs at {peaks['flops'] / 1e9:.0f} GFLOP/s, "
          f"a large copy at {peaks['bytes'] / 1e9:.1f} GB/s")
    print(f"{'ms per step':50}{'Cerebro':>9}{'PyTorch':>9}{'ratio':>7}{'target':>8}{'compiled':>10}{'ratio':>7}"
          f"{'bound':>18}{'times':>7}")
    for net, result in measured["nets"].items():
        title, target = NETS[net] if net in NETS else (LARGE[net][0], None)
        best, ratio, least = result["best"], result["ratio"], result["bound"]
        compiled = (f"{1e3 * best[COMPILED]:10.2f}{ratio[COMPILED]:7.2f}" if COMPILED in best else f"{'':17}")
        limit = f"{1e3 * least['seconds']:.2f} {least['of']}"
        print(f"{title:50}{1e3 * best[OURS]:9.2f}{1e3 * best[EAGER]:9.2f}{ratio[EAGER]:7.2f}"
              f"{target if target else '':>8}{compiled}{limit:>18}{best[OURS] / least['seconds']:7.1f}")


def memory(programs):
    """Peak of resident memory over what a program has before it has the network; medians of 3, large ones once."""
    results = {}
    for net in (net for net in MEMORY if net in options.nets):
        results[net] = {}
        for name in (OURS, EAGER):
            runs = [programs.once(name, 1, "memory", net, 8) for _ in range(3 if net in NETS else 1)]
            results[net][name] = {
                "grown": statistics.median(run["peak"] - run["before"] for run in runs),
                "peak": statistics.median(run["peak"] for run in runs),
            }
        ours, theirs = results[net][OURS], results[net][EAGER]
        print(f"memory of a training step, {net}: {ours['grown'] / 2**20:.0f} MiB beside {theirs['grown'] / 2**20:.0f}, "
              f"ratio {ours['grown'] / theirs['grown']:.2f}{' (at most 1.1)' if net in NETS else ''}; "
              f"whole process {ours['peak'] / 2**20:.0f} "
              f"beside {theirs['peak'] / 2**20:.0f} MiB")
    return results


def creation(programs):
    seconds = min(programs.once(OURS, 1, "create")["seconds"] for _ in range(3))
    print(f"drawing and compiling the step of a ResNet-18: {seconds:.3f} s (at most 0.5)")
    return seconds


def switches(programs):
    worker = programs.worker(OURS, 1)
    seconds = {net: worker.ask("switch", net)["seconds"] for net in options.nets}
    worker.close()
    slowest = max(seconds, key=seconds.get)
    print(f"going on with another trial: {1e3 * seconds[slowest]:.4f} ms for {slowest}, the slowest (at most 0.2)")
    return seconds


with tempfile.TemporaryDirectory() as folder:
    programs = Programs(pathlib.Path(folder))
    say("writing the networks")
    programs.export()
    figures = {"threads": {}}
    for threads in options.threads:
        figures["threads"][threads] = step_times(programs, threads)
        table(threads, figures["threads"][threads])
    if not options.only_steps:
        print()
        figures["memory"] = memory(programs)
        figures["creation"] = creation(programs)
        figures["switch"] = switches(programs)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
