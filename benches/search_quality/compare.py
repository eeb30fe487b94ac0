"""How good are our searches beside Optuna's? Prints a table for each problem.

    python3 benches/search_quality/compare.py [seeds] [--json FILE] [--cached] [--markdown]

Installs Optuna into target/search_quality/ the first time. Each search runs one trial at a time
until the problem's budget of epochs is spent; what counts is the true loss (without noise, after
all epochs) of the trial that looks best. The problems are written twice, here and in problems.rs,
and the script stops if they differ.

--json writes all runs to a file; --cached takes Optuna's runs from the last time with as many seeds;
--markdown prints the tables as the README has them.
"""

import json
import math
import pathlib
import statistics
import subprocess
import sys
import time
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / "target" / "search_quality" / "python"


def inside_environment():
    """Starts this script again where Optuna is installed."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    if pathlib.Path(sys.prefix) != ENVIRONMENT:
        packages = ["optuna==5.0.0", "cmaes==0.13.1"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        sys.exit(subprocess.run([python, __file__, *sys.argv[1:]]).returncode)


def branin(x):
    bowl = x[1] - 5.1 / (4 * math.pi**2) * x[0] ** 2 + 5 / math.pi * x[0] - 6
    return bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x[0]) + 10


def hartmann6(x):
    alpha = [1.0, 1.2, 3.0, 3.2]
    a = [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
    p = [
        [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
        [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
        [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
        [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
    ]
    distances = [sum(a[i][j] * (x[j] - p[i][j]) ** 2 for j in range(6)) for i in range(4)]
    return -sum(alpha[i] * math.exp(-distances[i]) for i in range(4))


def rosenbrock5(x):
    return sum(100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2 for i in range(4))


def box(function, bounds):
    def suggest(trial):
        return {f"x{i}": trial.suggest_float(f"x{i}", *b) for i, b in enumerate(bounds)}

    def loss(config, _):
        return function([config[f"x{i}"] for i in range(len(bounds))])

    return suggest, loss


def suggest_conditional(trial):
    config = {"optimizer": trial.suggest_categorical("optimizer", ["sgd", "adam"])}
    if config["optimizer"] == "sgd":
        config["sgd_rate"] = trial.suggest_float("sgd_rate", 1e-5, 1.0, log=True)
        config["momentum"] = trial.suggest_float("momentum", 0.0, 1.0)
    else:
        config["adam_rate"] = trial.suggest_float("adam_rate", 1e-5, 1.0, log=True)
        config["decay"] = trial.suggest_float("decay", 1e-6, 1e-1, log=True)
    config["layers"] = trial.suggest_int("layers", 1, 3)
    for layer in range(1, config["layers"] + 1):
        config[f"width{layer}"] = trial.suggest_float(f"width{layer}", 8.0, 1024.0, log=True)
    return config


def conditional(config, _):
    def square(name, base, best):
        return (math.log(config[name]) / math.log(base) - best) ** 2

    if config["optimizer"] == "sgd":
        loss = 0.3 + 0.5 * square("sgd_rate", 10, -1.5) + 4 * (config["momentum"] - 0.9) ** 2
    else:
        loss = 0.1 + square("adam_rate", 10, -3) + 0.1 * square("decay", 10, -4)
    layers = config["layers"]
    widths = sum(0.1 * square(f"width{n}", 2, 8 - n) for n in range(1, layers + 1))
    return loss + widths + 0.3 * (layers - 2) ** 2


def suggest_curve(trial):
    return {
        "rate": trial.suggest_float("rate", 1e-5, 1.0, log=True),
        "decay": trial.suggest_float("decay", 1e-6, 1e-1, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.8),
        "width": trial.suggest_int("width", 4, 256),
        "activation": trial.suggest_categorical("activation", ["relu", "tanh", "gelu"]),
    }


def curve(config, epoch):
    rate, decay = math.log10(config["rate"]), math.log10(config["decay"])
    width = math.log2(config["width"])
    level = (
        0.05
        + 0.08 * (rate + 2.5) ** 2
        + 0.01 * (decay + 4) ** 2
        + 0.3 * (config["dropout"] - 0.2) ** 2
        + 0.01 * (width - 6.5) ** 2
        + {"relu": 0.02, "gelu": 0.0, "tanh": 0.08}[config["activation"]]
    )
    epochs = 1.5 + 0.25 * max(-rate, 0) + 0.05 * width
    return level + (2.3 - min(level, 2.3)) * math.exp(-epoch / epochs)


PROBLEMS = {
    "branin": box(branin, [(-5.0, 10.0), (0.0, 15.0)]),
    "hartmann-6": box(hartmann6, [(0.0, 1.0)] * 6),
    "rosenbrock-5": box(rosenbrock5, [(-5.0, 10.0)] * 5),
    "conditional": (suggest_conditional, conditional),
    "learning curves": (suggest_curve, curve),
}


def optuna_searches(problem, epochs):
    import optuna
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
    from optuna.samplers import CmaEsSampler, RandomSampler, TPESampler

    def univariate(seed):
        return TPESampler(seed=seed, multivariate=False)

    def multivariate(seed):
        return TPESampler(seed=seed, multivariate=True, group=True)

    searches = {
        "Optuna random": (lambda seed: RandomSampler(seed=seed), NopPruner),
        "Optuna TPE, default": (lambda seed: TPESampler(seed=seed), NopPruner),
        "Optuna TPE, univariate": (univariate, NopPruner),
        "Optuna TPE, multivariate, grouped": (multivariate, NopPruner),
    }
    if problem in ("branin", "hartmann-6", "rosenbrock-5"):
        searches["Optuna CMA-ES"] = (lambda seed: CmaEsSampler(seed=seed), NopPruner)
    if epochs > 1:
        halving = lambda: SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
        hyperband = lambda: HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
        searches |= {
            "Optuna successive halving, TPE": (lambda seed: TPESampler(seed=seed), halving),
            "Optuna Hyperband, TPE": (lambda seed: TPESampler(seed=seed), hyperband),
            "Optuna median pruner, TPE": (lambda seed: TPESampler(seed=seed), MedianPruner),
        }
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return searches


def run_optuna(problem, check, make_sampler, make_pruner, seed):
    import random

    import optuna

    suggest, loss = PROBLEMS[problem]
    study = optuna.create_study(sampler=make_sampler(seed), pruner=make_pruner())
    spent, ranked, noise = 0, [], random.Random(seed)
    begin = time.perf_counter()
    while spent < check["budget"]:
        trial = study.ask()
        config = suggest(trial)
        state = optuna.trial.TrialState.COMPLETE
        for epoch in range(1, check["epochs"] + 1):
            value = loss(config, epoch) + check["noise"] * noise.gauss(0, 1)
            spent += 1
            trial.report(value, epoch)
            if spent >= check["budget"] or (epoch < check["epochs"] and trial.should_prune()):
                state = optuna.trial.TrialState.PRUNED if epoch < check["epochs"] else state
                break
        ranked.append((-epoch, value, config))
        pruned = state == optuna.trial.TrialState.PRUNED
        study.tell(trial, None if pruned else value, state=state)
    seconds = time.perf_counter() - begin
    best = min(ranked, key=lambda entry: entry[:2])[2]
    found = loss(best, check["epochs"])
    return {"best": found, "trials": len(ranked), "seconds": seconds}


def rank_sum_p(ours, theirs):
    """How likely a difference like this is between equal searches (Mann-Whitney, two-sided)."""
    pairs = [(a < b) + 0.5 * (a == b) for a in ours for b in theirs]
    n, m = len(ours), len(theirs)
    deviation = math.sqrt(n * m * (n + m + 1) / 12)
    z = abs(sum(pairs) - n * m / 2) / deviation
    return math.erfc(z / math.sqrt(2))


def run_ours(seeds):
    """Runs our searches; returns the problems' checks and the runs of each problem and search."""
    command = ["cargo", "run", "--release", "-q", "-p", "cerebro-search-quality", "--features", "cma-es", "--", str(seeds)]
    checks, results = {}, {}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            found = json.loads(line)
            if "check" in found:
                checks[found["check"]] = found
                again = PROBLEMS[found["check"]][1](found["config"], found["epoch"])
                if not math.isclose(again, found["loss"], rel_tol=1e-9):
                    sys.exit(f"{found['check']}: {again} here, {found['loss']} in Rust: {found}")
            else:
                results.setdefault(found["problem"], {}).setdefault(found["search"], []).append(found)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} failed")
    return checks, results


def main():
    inside_environment()
    arguments = sys.argv[1:]
    seeds = next((int(argument) for argument in arguments if argument.isdigit()), 30)
    checks, results = run_ours(seeds)
    cache = ROOT / "target" / "search_quality" / f"optuna-{seeds}.json"
    cached = json.loads(cache.read_text()) if cache.exists() and "--cached" in arguments else {}
    for problem, check in checks.items():
        for name, (sampler, pruner) in optuna_searches(problem, check["epochs"]).items():
            key = f"{problem}/{name}"
            if key not in cached:
                print(f"{problem}: {name}", file=sys.stderr, flush=True)
                cached[key] = [
                    run_optuna(problem, check, sampler, pruner, seed) for seed in range(seeds)
                ]
                cache.write_text(json.dumps(cached))
            results[problem][name] = cached[key]
        print_table(problem, check, results[problem], "--markdown" in arguments)
    if "--json" in arguments:
        path = pathlib.Path(arguments[arguments.index("--json") + 1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"checks": checks, "results": results}, indent=1))


COLUMNS = ["search", "median", "lower quartile", "upper quartile", "trials", "ms/trial", "p"]


def print_table(problem, check, searches, markdown):
    """p is how likely such a difference to Optuna's default TPE is between equal searches."""
    reference = [run["best"] for run in searches["Optuna TPE, default"]]
    rows = []
    for name, runs in searches.items():
        best = [run["best"] for run in runs]
        low, median, high = statistics.quantiles(best, n=4)
        trials = statistics.mean(run["trials"] for run in runs)
        milliseconds = statistics.mean(1e3 * run["seconds"] / run["trials"] for run in runs)
        numbers = [f"{median:.4f}", f"{low:.4f}", f"{high:.4f}", f"{trials:.0f}"]
        numbers += [f"{milliseconds:.3f}", f"{rank_sum_p(best, reference):.3f}"]
        rows.append([name, *numbers])
    print(f"\n{problem}: {check['budget']} epochs, {len(reference)} seeds; lower is better\n")
    if markdown:
        for row in [COLUMNS, ["---", *["--:"] * 6], *rows]:
            print("|", " | ".join(row), "|")
    else:
        for row in [COLUMNS, *rows]:
            print(f"{row[0]:34}{row[1]:>9}" + "".join(f"{cell:>16}" for cell in row[2:4])
                  + "".join(f"{cell:>10}" for cell in row[4:]))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
