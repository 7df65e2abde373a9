#!/usr/bin/env bash
# Runs one command on all workers of a Cloud TPU pod, and again after each preemption.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/tpu_pod.sh ACTION --name=NAME --zone=ZONE [--flag=value ...] [--dry_run] [-- COMMAND ...]

  up       create, wait, install and run; after a preemption delete and begin again   needs COMMAND
  create   ask for the pod, by a queued resource or (--plain) as a TPU VM at once
  wait     wait until the pod is there
  install  copy this checkout to every worker and install it there
  run      run COMMAND on every worker                                                needs COMMAND
  delete   give the pod back

  --name=NAME             of the pod
  --zone=ZONE             as us-central2-b
  --project=PROJECT       default: gcloud's own
  --type=TYPE             accelerator type (default v4-32)
  --version=VERSION       runtime version (default tpu-ubuntu2204-base)
  --spot                  cheaper, may be preempted
  --plain                 a TPU VM at once instead of a queued resource
  --restarts=N            how often `up` begins again (default 100)
  --poll_seconds=N        between two looks at the state (default 30)
  --dry_run               print the commands and run none

  launch/tpu_pod.sh up --name=ours --zone=us-central2-b --type=v4-32 --spot -- \
      train --config=configs/imagenet64_resnet18.py --workdir=/mnt/shared/run

COMMAND is what follows `python -m invariance_jax`. The workdir and the data must be on a file
system that every worker mounts at the same place.
TEXT
}

fail() {
  echo "launch/tpu_pod.sh: $1" >&2
  exit 2
}

say() {
  echo "launch/tpu_pod.sh: $1" >&2
}

case ${1:-} in
  up | create | wait | install | run | delete) action=$1 && shift ;;
  -h | --help) usage && exit 0 ;;
  *) fail "unknown action '${1:-}'; one of: up, create, wait, install, run, delete" ;;
esac
name='' zone='' project='' type=v4-32 version=tpu-ubuntu2204-base spot='' plain=''
restarts=100 poll_seconds=30 dry_run=''
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --poll_seconds=*) poll_seconds=${1#*=} ;;
    --spot) spot=yes ;;
    --plain) plain=yes ;;
    --dry_run) dry_run=yes ;;
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
    *) fail "unknown flag '$1'; see launch/tpu_pod.sh --help" ;;
  esac
  shift
done
[ -n "$name" ] || fail "--name is missing; give it as --name=NAME"
[ -n "$zone" ] || fail "--zone is missing; give it as --zone=us-central2-b"
for flag in restarts poll_seconds; do
  [[ ${!flag} =~ ^[0-9]+$ ]] || fail "--$flag is '${!flag}'; expected a whole number"
done
case $action in
  up | run) [ $# -gt 0 ] || fail "no command; expected one after --, as: -- train --config=..." ;;
esac
[ -n "$dry_run" ] || command -v gcloud >/dev/null || fail "gcloud is not here; install the Google Cloud SDK"

place=("--zone=$zone")
[ -z "$project" ] || place+=("--project=$project")
vm=(gcloud compute tpus tpu-vm)
queued=(gcloud compute tpus queued-resources)
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Runs a command, or prints it.
act() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@" | sed 's/ $//'
    echo
  else
    "$@"
  fi
}

create() {
  local flags=("${place[@]}" "--accelerator-type=$type")
  [ -z "$spot" ] || flags+=(--spot)
  if [ -n "$plain" ]; then
    act "${vm[@]}" create "$name" "${flags[@]}" "--version=$version"
  else
    act "${queued[@]}" create "$name" "${flags[@]}" "--runtime-version=$version" "--node-id=$name"
  fi
}

# Prints the state of the pod: READY, PREEMPTED ..., or of its request in the queue: ACTIVE,
# WAITING_FOR_RESOURCES, SUSPENDED, FAILED ...; nothing if there is none.
state() {
  if [ -n "$plain" ]; then
    "${vm[@]}" describe "$name" "${place[@]}" '--format=value(state)' 2>/dev/null || true
  else
    "${queued[@]}" describe "$name" "${place[@]}" '--format=value(state.state)' 2>/dev/null || true
  fi
}

# Ends when the pod is there: 0; or when it will not come: 1.
wait_for() {
  local found=none before=
  if [ -n "$dry_run" ]; then
    if [ -n "$plain" ]; then
      act "${vm[@]}" describe "$name" "${place[@]}" '--format=value(state)'
    else
      act "${queued[@]}" describe "$name" "${place[@]}" '--format=value(state.state)'
    fi
    return
  fi
  while true; do
    found=$(state)
    [ "$found" = "$before" ] || say "$name is ${found:-absent}"
    before=$found
    case $found in
      READY | ACTIVE) return 0 ;;
      '' | FAILED | SUSPEND* | DELETING | PREEMPTED | TERMINATED | STOPPED) return 1 ;;
    esac
    sleep "$poll_seconds"
  done
}

on_all_workers() {
  act "${vm[@]}" ssh "$name" "${place[@]}" --worker=all "--command=$1"
}

install() {
  local archive=/tmp/invariance_jax_$name.tar.gz
  # Files that git knows, as they are here: changes that are not committed travel too.
  act bash -c "git -C '$checkout' ls-files -z | tar -C '$checkout' --null -T - -czf '$archive'" &&
    act "${vm[@]}" scp "$archive" "$name:$archive" "${place[@]}" --worker=all &&
    on_all_workers "set -e
mkdir -p invariance_jax && tar -C invariance_jax -xzf $archive
cd invariance_jax
python=\$(command -v python3.13 || command -v python3.12 || command -v python3.11 || true)
if [ -z \"\$python\" ]; then
  sudo apt-get -qq update
  sudo apt-get -qq install -y python3.11 python3.11-venv
  python=python3.11
fi
\$python -m venv .venv
.venv/bin/pip install --quiet --upgrade pip
.venv/bin/pip install --quiet --editable . 'jax[tpu]'"
}

run() {
  local words
  words=$(printf '%q ' "$@")
  # A process that lost its terminal would still hold the chips.
  on_all_workers "cd invariance_jax
pkill -TERM -f '[p]ython -m invariance_jax' && sleep 30
exec env INVARIANCE_JAX_DISTRIBUTED=auto .venv/bin/python -m invariance_jax ${words% }"
}

delete() {
  if [ -n "$plain" ]; then
    act "${vm[@]}" delete "$name" "${place[@]}" --quiet
  else
    act "${queued[@]}" delete "$name" "${place[@]}" --force --quiet
  fi
}

up() {
  local attempt code found failures=0
  for ((attempt = 0; attempt <= restarts; attempt++)); do
    if [ -n "$dry_run" ] || [ -z "$(state)" ]; then
      create || say "could not create $name"
    fi
    code=1
    if wait_for && install; then
      code=0
      run "$@" || code=$?
    fi
    if [ "$code" -eq 0 ]; then
      delete
      return 0
    fi
    found=$(state)
    case $found in
      READY | ACTIVE)
        # gcloud does not always pass on the code by which a command says that it is mistaken.
        failures=$((failures + 1))
        if [ "$code" -eq 2 ] || [ "$failures" -ge 3 ]; then
          say "the command failed with code $code, $failures times in a row; $name is kept"
          return "$code"
        fi
        say "the command failed with code $code; starting it again"
        ;;
      '') failures=0 ;;
      *)
        say "$name is $found; beginning again"
        failures=0
        delete || true
        ;;
    esac
    sleep "$poll_seconds"
  done
  say "began $((restarts + 1)) times; giving up"
  return 1
}

case $action in
  up) up "$@" ;;
  create) create ;;
  wait) wait_for ;;
  install) install ;;
  run) run "$@" ;;
  delete) delete ;;
esac
