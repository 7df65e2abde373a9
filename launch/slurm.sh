#!/usr/bin/env bash
# Submits one command to SLURM as one process a GPU or one a node.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/slurm.sh [--nodes=N] [--gpus=N] [--per=gpu|node] [--log_dir=DIR] [--dry_run]
                       [SBATCH_FLAG ...] -- COMMAND ...

Submits COMMAND to SLURM on N nodes (default 1) with N GPUs each (default 8). --per=gpu (default)
starts one process for each GPU, --per=node one for each node. Other flags go to sbatch as they are.
--dry_run prints the command and submits nothing.

  launch/slurm.sh --nodes=2 --partition=gpu --time=24:00:00 -- \
      .venv/bin/invariance-jax train --config=configs/imagenet64_resnet18.py --workdir=/shared/run

Two minutes before the time limit and when it is preempted the run saves, goes back into the queue
and later goes on from there. The workdir must be on a file system that all nodes share.
TEXT
}

fail() {
  echo "launch/slurm.sh: $1" >&2
  exit 2
}

number() {
  [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 is '$2'; expected a whole number, at least 1"
}

nodes=1 gpus=8 per=gpu log_dir=slurm dry_run='' separator=''
others=()
while [ $# -gt 0 ]; do
  case $1 in
    --nodes=*) nodes=${1#*=} ;;
    --gpus=*) gpus=${1#*=} ;;
    --per=*) per=${1#*=} ;;
    --log_dir=*) log_dir=${1#*=} ;;
    --dry_run) dry_run=yes ;;
    -h | --help) usage && exit 0 ;;
    --) separator=yes && shift && break ;;
    --*) others+=("$1") ;;
    *) fail "unexpected argument '$1'; flags are written --name=value, the command follows --" ;;
  esac
  shift
done
[ -n "$separator" ] && [ $# -gt 0 ] || fail "no command; expected one after --"
number --nodes "$nodes"
number --gpus "$gpus"

prefix=()
case $per in
  gpu) tasks=$gpus ;;
  node)
    tasks=1
    # In SLURM JAX takes one GPU for each process unless it is told which.
    prefix=(env "JAX_LOCAL_DEVICE_IDS=$(seq -s , 0 $((gpus - 1)))")
    ;;
  *) fail "--per is '$per'; expected gpu or node" ;;
esac

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
command=(
  sbatch --requeue --signal=B:USR1@120 --open-mode=append
  "--output=$log_dir/%j.log" "--nodes=$nodes" "--ntasks-per-node=$tasks" "--gpus-per-node=$gpus"
  ${others[@]+"${others[@]}"} "$here/slurm.sbatch" ${prefix[@]+"${prefix[@]}"} "$@"
)

if [ -n "$dry_run" ]; then
  printf '%q ' "${command[@]}" | sed 's/ $//'
  echo
  exit 0
fi
command -v sbatch >/dev/null || fail "sbatch is not here; run this on a SLURM login node"
mkdir -p "$log_dir"
exec "${command[@]}"
