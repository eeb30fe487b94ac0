"""What the side-by-side programs share: a Python environment of their own, and Cerebro's programs."""

import os
import pathlib
import subprocess
import sys
import venv

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def add_environment(parser):
    parser.add_argument("--environment", type=pathlib.Path, default=ROOT / "target" / "side-by-side-python",
                        help="where PyTorch is, or is to be installed")


def python_with(environment, packages):
    """The Python of `environment`, into which pip installs those of `packages` that it lacks."""
    python = environment / "bin" / "python"
    if not python.exists():
        print(f"installing {', '.join(packages)} into {environment} ...", file=sys.stderr)
        venv.create(environment, with_pip=True)
    wanted = [name for name in packages
              if subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode]
    if wanted:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    return python


def program(name):
    """Cerebro's program `name`, built for release."""
    subprocess.run(["cargo", "build", "--release", "-p", "cerebro-benches", "--bin", name], cwd=ROOT, check=True)
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / name
