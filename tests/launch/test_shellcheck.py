"""Every shell script passes shellcheck."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
SHELLCHECK = pathlib.Path(sys.executable).parent / "shellcheck"


def test_shell_scripts_pass_shellcheck(tmp_path):
    scripts = [*ROOT.glob("launch/**/*.sh"), *ROOT.glob("launch/**/*.sbatch"), ROOT / ".ci/run"]
    assert len(scripts) >= 4
    done = subprocess.run([SHELLCHECK, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "wrong.sh"
    wrong.write_text("#!/bin/sh\nrm $1\n")
    assert subprocess.run([SHELLCHECK, wrong], capture_output=True).returncode == 1
