"""The SLURM scripts with stand-ins for SLURM: what is submitted, and how a job ends."""

import pathlib
import signal
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
COMMAND = ("invariance-jax", "train", "--config.augment.name=translate(t=0.1)")


def test_one_process_a_gpu(run_script):
    flags = ("--nodes=2", "--gpus=4", "--partition=gpu", "--time=1:00:00", "--dry_run")
    done = run_script("slurm.sh", *flags, "--", *COMMAND)
    assert done.stdout == (
        "sbatch --requeue --signal=B:USR1@120 --open-mode=append --output=slurm/%j.log --nodes=2 "
        "--ntasks-per-node=4 --gpus-per-node=4 --partition=gpu --time=1:00:00 "
        f"{LAUNCH / 'slurm.sbatch'} invariance-jax train "
        "--config.augment.name=translate\\(t=0.1\\)\n"
    )


def test_one_process_a_node_takes_all_gpus(run_script):
    done = run_script("slurm.sh", "--per=node", "--gpus=4", "--dry_run", "--", *COMMAND)
    assert "--nodes=1 --ntasks-per-node=1 --gpus-per-node=4" in done.stdout
    assert "slurm.sbatch env JAX_LOCAL_DEVICE_IDS=0\\,1\\,2\\,3 invariance-jax" in done.stdout


def test_the_dry_run_is_what_is_submitted(run_script, stand_in, tmp_path):
    stand_in("sbatch", 'printf "%s\\n" sbatch "$@"')
    flags = ("--nodes=2", f"--log_dir={tmp_path / 'logs'}")
    shown = run_script("slurm.sh", *flags, "--dry_run", "--", *COMMAND).stdout
    done = run_script("slurm.sh", *flags, "--", *COMMAND, env=stand_in.environ)
    assert " ".join(done.stdout.split("\n")).strip() == shown.strip().replace("\\", "")
    assert (tmp_path / "logs").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--nodes=2",), "no command; expected one after --"),
        (("--nodes=two", "--", "a"), "--nodes is 'two'; expected a whole number"),
        (("--per=host", "--", "a"), "--per is 'host'; expected gpu or node"),
        (("train", "--", "a"), "unexpected argument 'train'"),
        (("--", "a"), "sbatch is not here"),
    ],
)
def test_mistakes(arguments, message, run_script, bare_environ):
    done = run_script("slurm.sh", *arguments, env=bare_environ)
    assert done.returncode == 2 and message in done.stderr


@pytest.fixture
def job(stand_in, tmp_path):
    """A job's environment: `srun` runs the command itself, `scontrol` writes down its call."""
    stand_in("srun", f'echo "$1 $2" > {tmp_path}/srun; shift 2; exec "$@"')
    stand_in("scontrol", f'echo "$@" > {tmp_path}/scontrol')
    return {**stand_in.environ, "SLURM_JOB_ID": "17"}


@pytest.mark.parametrize("code", [0, 1])
def test_a_job_ends_with_the_code_of_its_step(code, job, run_script, tmp_path):
    script = f"echo $INVARIANCE_JAX_DISTRIBUTED; exit {code}"
    done = run_script("slurm.sbatch", "sh", "-c", script, env=job)
    assert (done.returncode, done.stdout) == (code, "auto\n")
    assert (tmp_path / "srun").read_text() == "--kill-on-bad-exit=1 --gpu-bind=none\n"
    assert not (tmp_path / "scontrol").exists()  # a failure does not go back into the queue


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_preempted_job_saves_and_goes_back_into_the_queue(number, job, tmp_path):
    script = "trap 'echo saved; exit 143' TERM; echo ready; while :; do sleep 0.05; done"
    command = [str(LAUNCH / "slurm.sbatch"), "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=job) as batch:
        assert batch.stdout.readline() == "ready\n"
        batch.send_signal(number)
        rest, _ = batch.communicate(timeout=60)
    assert rest == "saved\n" and batch.returncode == 143
    assert (tmp_path / "scontrol").read_text() == "requeue 17\n"


def test_a_preempted_job_that_finished_stays_finished(job, tmp_path):
    script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    command = [str(LAUNCH / "slurm.sbatch"), "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=job) as batch:
        assert batch.stdout.readline() == "ready\n"
        batch.send_signal(signal.SIGTERM)
        batch.communicate(timeout=60)
    assert batch.returncode == 0 and not (tmp_path / "scontrol").exists()
