"""The TPU script with a stand-in for gcloud: the commands, preemption, mistakes."""

import pytest

NAMED = ("--name=ours", "--zone=us-central2-b")
VM, QUEUED = "gcloud compute tpus tpu-vm", "gcloud compute tpus queued-resources"
COMMAND = ("--", "train", "--config.augment.name=translate(t=0.1)")


def test_up_by_a_queued_resource(run_script):
    done = run_script("tpu_pod.sh", "up", *NAMED, "--spot", "--type=v4-64", "--dry_run", *COMMAND)
    assert done.returncode == 0, done.stderr
    create, describe, pack, copy, install, run, delete = done.stdout.splitlines()
    assert create == (
        f"{QUEUED} create ours --zone=us-central2-b --accelerator-type=v4-64 --spot "
        "--runtime-version=tpu-ubuntu2204-base --node-id=ours"
    )
    assert describe == (
        f"{QUEUED} describe ours --zone=us-central2-b --format=value\\(state.state\\)"
    )
    assert "ls-files" in pack
    archive = "/tmp/invariance_jax_ours.tar.gz"
    assert copy == f"{VM} scp {archive} ours:{archive} --zone=us-central2-b --worker=all"
    assert install.startswith(f"{VM} ssh ours --zone=us-central2-b --worker=all $'--command=")
    assert ".venv/bin/pip install --quiet --editable . \\'jax[tpu]\\'" in install
    assert run.startswith(f"{VM} ssh ours --zone=us-central2-b --worker=all $'--command=")
    assert run.endswith(
        "exec env INVARIANCE_JAX_DISTRIBUTED=auto .venv/bin/python -m invariance_jax "
        "train --config.augment.name=translate\\\\(t=0.1\\\\)'"
    )
    assert delete == f"{QUEUED} delete ours --zone=us-central2-b --force --quiet"


def test_a_plain_vm(run_script):
    flags = (*NAMED, "--plain", "--project=mine", "--dry_run")
    for action, expected in (
        (
            "create",
            f"{VM} create ours --zone=us-central2-b --project=mine --accelerator-type=v4-32 "
            "--version=tpu-ubuntu2204-base",
        ),
        (
            "wait",
            f"{VM} describe ours --zone=us-central2-b --project=mine --format=value\\(state\\)",
        ),
        ("delete", f"{VM} delete ours --zone=us-central2-b --project=mine --quiet"),
    ):
        assert run_script("tpu_pod.sh", action, *flags).stdout == expected + "\n"


@pytest.fixture
def cloud(stand_in, tmp_path):
    """A cloud that keeps the pod's state in a file and writes down every call.

    The first `outcomes` say how each run of the command ends: a code, or `preempted`.
    """

    def make(*outcomes):
        (tmp_path / "outcomes").write_text("\n".join(outcomes) + "\n")
        stand_in(
            "gcloud",
            f"""
cd {tmp_path}
case "$*" in
  *" create "*) echo create >> calls; echo ACTIVE > state ;;
  *" describe "*) cat state 2>/dev/null ;;
  *" delete "*) echo delete >> calls; rm -f state ;;
  *" scp "*) echo scp >> calls ;;
  *"pip install"*) echo install >> calls ;;
  *" ssh "*)
    echo run >> calls
    outcome=$(head -1 outcomes); sed -i 1d outcomes
    if [ "$outcome" = preempted ]; then echo SUSPENDED > state; exit 255; fi
    exit "$outcome" ;;
esac""",
        )
        return stand_in.environ

    make.calls = lambda: (tmp_path / "calls").read_text().split()
    return make


def up(run_script, environ):
    return run_script("tpu_pod.sh", "up", *NAMED, "--poll_seconds=0", *COMMAND, env=environ)


def test_a_preempted_pod_is_made_again(run_script, cloud):
    done = up(run_script, cloud("preempted", "0"))
    assert done.returncode == 0, done.stderr
    once = ["create", "scp", "install", "run", "delete"]
    assert cloud.calls() == once * 2
    assert "ours is SUSPENDED; beginning again" in done.stderr


def test_a_run_that_fails_is_started_again_on_the_same_pod(run_script, cloud):
    done = up(run_script, cloud("1", "0"))
    assert done.returncode == 0
    tries = ["scp", "install", "run"]
    assert cloud.calls() == ["create", *tries, *tries, "delete"]


@pytest.mark.parametrize(("outcomes", "code", "runs"), [("2", 2, 1), ("1 1 1 0", 1, 3)])
def test_a_mistake_ends_it_and_keeps_the_pod(outcomes, code, runs, run_script, cloud):
    done = up(run_script, cloud(*outcomes.split()))
    assert done.returncode == code and "ours is kept" in done.stderr
    assert cloud.calls().count("run") == runs and "delete" not in cloud.calls()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("upp",), "unknown action 'upp'; one of: up, create"),
        (("create", "--zone=a"), "--name is missing"),
        (("create", "--name=a"), "--zone is missing"),
        (("run", *NAMED), "no command; expected one after --"),
        (("create", *NAMED, "--tpye=v4"), "unknown flag '--tpye=v4'"),
        (("create", *NAMED, "--restarts=x"), "--restarts is 'x'; expected a whole number"),
        (("create", *NAMED), "gcloud is not here"),
    ],
)
def test_mistakes(arguments, message, run_script, bare_environ):
    done = run_script("tpu_pod.sh", *arguments, env=bare_environ)
    assert done.returncode == 2 and message in done.stderr
