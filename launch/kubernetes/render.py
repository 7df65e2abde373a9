#!/usr/bin/env python3
r"""Runs one command on Kubernetes as a JobSet: one pod a host, GPUs or a TPU slice.

    launch/kubernetes/render.py --name=ours --image=IMAGE --nodes=2 --gpus=8 --claim=shared -- \
        train --config=configs/imagenet64_resnet18.py --workdir=/mnt/run

The command is what follows `python -m invariance_jax` in the image. If any pod fails or is evicted,
all are started again and go on from the last checkpoint; a mistake of the user's (code 2) ends the
JobSet. --dry_run prints the manifest instead of giving it to `kubectl apply`.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import yaml

_PORT = 12321
_USER_ERROR = 2
# How long a pod may save after SIGTERM.
_GRACE_SECONDS = 120
_GROUP = "workers"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line.

    Args:
        argv: Flags, `--`, and the command.

    Returns:
        The flags; a mistake ends the program with code 2.
    """
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--name", required=True, help="of the JobSet")
    add("--image", required=True, help="container image with invariance_jax and a matching jax")
    add("--nodes", type=int, required=True, help="hosts, one pod each")
    add("--gpus", type=int, default=0, help="GPUs of each host")
    add("--tpu", default="", help="GKE accelerator of a slice, as tpu-v5-lite-podslice")
    add("--topology", default="", help="GKE topology of the slice, as 4x4")
    add("--chips", type=int, default=4, help="TPU chips of each host (default: 4)")
    add("--claim", default="", help="PersistentVolumeClaim that all pods share, mounted at /mnt")
    add("--shared_memory", default="16Gi", help="for decoding processes (default: 16Gi)")
    add("--restarts", type=int, default=100, help="how often all begin again (default: 100)")
    add("--dry_run", action="store_true", help="print the manifest and apply nothing")
    add("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the package's command")
    values = parser.parse_args(argv)
    if values.command[:1] == ["--"]:
        del values.command[0]
    if not values.command:
        parser.error("no command; expected one after --, as: -- train --config=...")
    if bool(values.gpus) == bool(values.tpu):
        parser.error("expected one of --gpus=N and --tpu=ACCELERATOR")
    if values.tpu and not values.topology:
        parser.error("--topology is missing; give it as --topology=4x4")
    for name in ("nodes", "chips"):
        if getattr(values, name) < 1:
            parser.error(f"--{name} is {getattr(values, name)}; expected at least 1")
    return values


def manifest(values: argparse.Namespace) -> dict[str, Any]:
    """Makes the JobSet.

    Args:
        values: The flags.

    Returns:
        The manifest, as `yaml.safe_dump` takes it.
    """
    job = {
        "parallelism": values.nodes,
        "completions": values.nodes,
        "completionMode": "Indexed",
        # The JobSet begins again, not the pod: the others must be told.
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": "train",
                        "operator": "In",
                        "values": [_USER_ERROR],
                    },
                }
            ]
        },
        "template": {"spec": _pod(values)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": values.name},
        "spec": {
            "failurePolicy": {
                "maxRestarts": values.restarts,
                "rules": [
                    {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]},
                ],
            },
            "replicatedJobs": [{"name": _GROUP, "replicas": 1, "template": {"spec": job}}],
        },
    }


def _pod(values: argparse.Namespace) -> dict[str, Any]:
    resource, amount = ("google.com/tpu", values.chips) if values.tpu else _gpus(values)
    volumes = [{"name": "memory", "emptyDir": _memory(values)}]
    mounts = [{"name": "memory", "mountPath": "/dev/shm"}]
    if values.claim:
        volumes.append({"name": "shared", "persistentVolumeClaim": {"claimName": values.claim}})
        mounts.append({"name": "shared", "mountPath": "/mnt"})
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "containers": [
            {
                "name": "train",
                "image": values.image,
                "command": ["python", "-u", "-m", "invariance_jax", *values.command],
                "env": _tpu_environment() if values.tpu else _gpu_environment(values),
                "resources": {"limits": {resource: amount}},
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    if values.tpu:
        pod["nodeSelector"] = {
            "cloud.google.com/gke-tpu-accelerator": values.tpu,
            "cloud.google.com/gke-tpu-topology": values.topology,
        }
    return pod


def _gpus(values: argparse.Namespace) -> tuple[str, int]:
    return "nvidia.com/gpu", values.gpus


def _memory(values: argparse.Namespace) -> dict[str, str]:
    return {"medium": "Memory", "sizeLimit": values.shared_memory}


def _tpu_environment() -> list[dict[str, Any]]:
    """GKE tells each pod of a slice who it is, and JAX reads that."""
    return [{"name": "INVARIANCE_JAX_DISTRIBUTED", "value": "auto"}]


def _gpu_environment(values: argparse.Namespace) -> list[dict[str, Any]]:
    """Pod 0 has a stable name in the JobSet's network; every pod knows its number."""
    coordinator = f"{values.name}-{_GROUP}-0-0.{values.name}:{_PORT}"
    number = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    return [
        {"name": "INVARIANCE_JAX_COORDINATOR", "value": coordinator},
        {"name": "INVARIANCE_JAX_NUM_PROCESSES", "value": str(values.nodes)},
        {
            "name": "INVARIANCE_JAX_PROCESS_ID",
            "valueFrom": {"fieldRef": {"fieldPath": number}},
        },
    ]


def main(argv: Sequence[str]) -> int:
    """Renders the manifest and applies it.

    Args:
        argv: The command line.

    Returns:
        The exit code.
    """
    values = parse(argv)
    text = yaml.safe_dump(manifest(values), sort_keys=False)
    command = ["kubectl", "apply", "--filename=-"]
    if values.dry_run:
        print(f"# {shlex.join(command)}\n{text}", end="")
        return 0
    if shutil.which(command[0]) is None:
        print("render.py: kubectl is not here; print the manifest by --dry_run", file=sys.stderr)
        return _USER_ERROR
    done = subprocess.run(command, input=text, text=True, check=False)
    logs = f"kubectl logs --follow --selector=jobset.sigs.k8s.io/jobset-name={values.name}"
    print(f"output: {logs} --max-log-requests={values.nodes}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
