"""The JobSet: who the pods are, what they run, what is started again."""

import pathlib
import sys

import pytest
import yaml

RENDER = "kubernetes/render.py"
COMMON = ("--name=ours", "--image=registry/ours:1", "--nodes=2")
COMMAND = ("--", "train", "--workdir=/mnt/run", "--config.augment.name=translate(t=0.1)")


@pytest.fixture(autouse=True)
def interpreter(stand_in, monkeypatch):
    """The script's own interpreter line finds this environment's Python."""
    monkeypatch.setenv("PATH", f"{pathlib.Path(sys.executable).parent}:{stand_in.environ['PATH']}")


def rendered(run_script, *flags):
    done = run_script(RENDER, *COMMON, *flags, "--dry_run", *COMMAND)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# kubectl apply --filename=-\n")
    return yaml.safe_load(done.stdout)


def test_gpus(run_script):
    found = rendered(run_script, "--gpus=8", "--claim=shared", "--restarts=7")
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert found["metadata"] == {"name": "ours"}
    policy = found["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 7
    assert policy["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    (group,) = found["spec"]["replicatedJobs"]
    job = group["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (2, 2, 0)
    assert job["completionMode"] == "Indexed"
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert container["command"] == ["python", "-u", "-m", "invariance_jax", *COMMAND[1:]]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    environment = {each["name"]: each.get("value") for each in container["env"]}
    # JobSet's name of the first pod: JOBSET-GROUP-JOB-POD.JOBSET.
    assert environment["INVARIANCE_JAX_COORDINATOR"] == f"ours-{group['name']}-0-0.ours:12321"
    assert environment["INVARIANCE_JAX_NUM_PROCESSES"] == "2"
    (process,) = [each for each in container["env"] if "valueFrom" in each]
    assert process["name"] == "INVARIANCE_JAX_PROCESS_ID"
    path = process["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    claims = {v["name"]: v["persistentVolumeClaim"] for v in pod["volumes"][1:]}
    assert claims[mounts["/mnt"]] == {"claimName": "shared"} and "/dev/shm" in mounts


def test_a_tpu_slice(run_script):
    found = rendered(run_script, "--tpu=tpu-v5-lite-podslice", "--topology=2x4")
    pod = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"google.com/tpu": 4}}
    assert container["env"] == [{"name": "INVARIANCE_JAX_DISTRIBUTED", "value": "auto"}]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "2x4",
    }


def test_the_dry_run_is_what_is_applied(run_script, stand_in, tmp_path, monkeypatch):
    stand_in("kubectl", f'echo "# kubectl $*" > {tmp_path}/applied; cat >> {tmp_path}/applied')
    shown = run_script(RENDER, *COMMON, "--gpus=1", "--dry_run", *COMMAND).stdout
    done = run_script(RENDER, *COMMON, "--gpus=1", *COMMAND)
    assert done.returncode == 0 and "kubectl logs --follow" in done.stdout
    assert (tmp_path / "applied").read_text() == shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*COMMON, *COMMAND), "expected one of --gpus=N and --tpu=ACCELERATOR"),
        ((*COMMON, "--gpus=1"), "no command; expected one after --"),
        ((*COMMON, "--tpu=a", *COMMAND), "--topology is missing"),
        (("--name=a", "--image=b", "--nodes=0", "--gpus=1", *COMMAND), "--nodes is 0"),
        ((*COMMON, "--gpus=1", *COMMAND), "kubectl is not here"),
    ],
)
def test_mistakes(arguments, message, run_script, bare_environ):
    done = run_script(RENDER, *arguments, env=bare_environ)
    assert done.returncode == 2 and message in done.stderr
