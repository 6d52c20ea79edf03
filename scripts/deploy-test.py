#!/usr/bin/env python3
"""Runs the image, the compose file and the Kubernetes manifests with podman, as `make deploy-test` does.

Needs root on a Debian-like system; scripts/install-tools.sh has installed podman and the rest. No image is pulled: the
base image is made by debootstrap, and Redis, HAProxy and Prometheus come from Debian's packages. Everything is made in
one folder and removed at the end, unless --cache names a folder to keep for the next run.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import venv
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent))
ROOT = Path(__file__).resolve().parent.parent
WITHOUT_CONTAINERS = {"manifests", "hosts"}
PACKAGES = ["podman-compose==1.6.0", "kubernetes-validate==1.37.0", "pyyaml==6.0.3"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binaries", type=Path, required=True, help="folder with the binaries that cargo has built")
    parser.add_argument("--cache", type=Path, help="folder for the base image and the Python packages; it is kept")
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help="run these parts only")
    return parser.parse_args()


def with_packages(folder):
    """Runs this script again with the Python packages that it needs, unless it has them."""
    python = folder / "venv/bin/python"
    if Path(sys.executable) == python:
        return
    if not python.exists():
        venv.create(folder / "venv", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    os.environ["DEPLOY_TEST_FOLDER"] = str(folder)
    os.execv(python, [str(python), *sys.argv])


def main():
    given = arguments()
    kept = given.cache is not None
    folder = given.cache or Path(os.environ.get("DEPLOY_TEST_FOLDER") or tempfile.mkdtemp(prefix="leasehold-deploy-"))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with_packages(folder)

    from deploy_test import hosts, image, kubernetes, stack
    from deploy_test.machine import CannotRun, Machine

    machine = Machine(folder, ROOT)
    machine.state["binaries"] = given.binaries.resolve()
    parts = {
        "manifests": kubernetes.manifests,
        "image": image.image,
        "compose": stack.comes_up,
        "replicas": stack.every_replica_is_reached,
        "kill": stack.survives_kills,
        "roll": stack.rolls_a_new_version,
        "zero": stack.scales_to_zero_and_back,
        "observability": stack.prometheus_finds_all,
        "five-systems": stack.five_systems,
        "pods": kubernetes.pods,
        "hosts": hosts.one_is_cut_off,
    }
    results = {}
    begun = time.monotonic()
    try:
        if not given.only or set(given.only) - WITHOUT_CONTAINERS:
            try:
                image.prepare(machine, given.binaries.resolve())
            except CannotRun as reason:
                machine.state["no containers"] = reason
        for name, part in parts.items():
            if given.only and name not in given.only:
                continue
            at = time.monotonic()
            try:
                if name not in WITHOUT_CONTAINERS and "no containers" in machine.state:
                    raise machine.state["no containers"]
                said = part(machine)
                results[name] = f"PASSED    {said}"
            except CannotRun as reason:
                results[name] = f"NOT RUN   {reason}"
            except Exception as failure:  # Reported below; the other parts run.
                traceback.print_exc()
                results[name] = f"FAILED    {failure}"
            print(f"--- {name}: {results[name]} ({time.monotonic() - at:.0f} s)", flush=True)
    finally:
        left = machine.clean(keep_images=kept)
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    results["clean"] = f"FAILED    left behind: {left}" if left else "PASSED    nothing is left running"
    print(f"\ndeploy-test, {time.monotonic() - begun:.0f} s:")
    for name, result in results.items():
        print(f"  {name:14} {result}")
    sys.exit(any(result.startswith("FAILED") for result in results.values()))


if __name__ == "__main__":
    main()
