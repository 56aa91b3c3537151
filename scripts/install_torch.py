"""Install torch into this environment: a build without CUDA by default, a build with CUDA for `gpu`.

On Linux, pip may install a CUDA build of several gigabytes by default. In that case, the CPU build is installed with
uv's `--torch-backend=cpu`.

Usage: python scripts/install_torch.py [cpu|gpu]
"""

from __future__ import annotations

import json
import subprocess
import sys

TORCH = "torch==2.13.0"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
CUDA_PARTS = ("nvidia", "cuda", "triton")


def main(build: str) -> None:
    """Install the requested build, replacing any other."""
    if build not in ("cpu", "gpu"):
        sys.exit(f'TORCH={build}: use "cpu" or "gpu".')
    installed = installed_build()
    if installed == build:
        return
    if installed is not None:
        run(*PIP, "uninstall", "--quiet", "--yes", "torch")
    if build == "cpu" and brings_cuda():
        run(*PIP, "install", "--quiet", "uv")
        run("uv", "pip", "install", "--python", sys.executable, "--torch-backend=cpu", TORCH)
    else:
        run(*PIP, "install", "--quiet", TORCH)
    if (now := installed_build()) != build:
        sys.exit(f"{TORCH} was installed, but it is a build for {now}: see 'Get started' on pytorch.org.")


def installed_build() -> str | None:
    """Return the build of the installed torch, or None if it is missing or has another version."""
    code = "import torch; print(torch.__version__.split('+')[0], 'gpu' if torch.version.cuda else 'cpu')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    version, _, build = result.stdout.strip().partition(" ")
    return build if version == TORCH.partition("==")[2] else None


def brings_cuda() -> bool:
    """Return whether pip would install CUDA packages by default."""
    command = [*PIP, "install", "--quiet", "--dry-run", "--report", "-", TORCH]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return any(item["metadata"]["name"].lower().startswith(CUDA_PARTS) for item in report["install"])


def run(*command: str) -> None:
    """Print and run a command; uv is run as a module of this Python."""
    print("+", *command, flush=True)
    subprocess.run([sys.executable, "-m", *command] if command[0] == "uv" else command, check=True)


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["cpu"]))
