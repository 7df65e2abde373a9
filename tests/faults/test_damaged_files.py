"""Files that people edit, cut or copy from elsewhere: what is known is read, the rest is named."""

import json

import pytest

from invariance_jax.__main__ import main
from invariance_jax.training import metrics


def test_a_resumed_run_takes_back_what_it_repeats(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3):
        with path.open("a") as file:
            file.write(json.dumps({"step": step, "loss": 1.0 / step}) + "\n")
            if step == 1:
                file.write('[1]\n{"no": "step"}\n')
    with path.open("ab") as file:
        file.write(b'{"step": 4, "lo\xff')  # a process was killed here
    assert [row["step"] for row in metrics.read_metrics(tmp_path)] == [1, 2, 3]
    metrics.MetricWriter(tmp_path, 2).write(3, {"loss": 0.25})
    expected = [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 0.5},
        {"step": 3, "loss": 0.25},
    ]
    assert metrics.read_metrics(tmp_path) == expected
    assert path.read_text().count('{"no": "step"}') == 1  # what it does not know it leaves


@pytest.mark.parametrize("command", ["export", "evaluate"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"null", "config.json is None (NoneType); expected a group of fields"),
        (b"[1]", "config.json is [1] (list); expected a group of fields"),
        (b"{", "config.json is not JSON"),
        (b"\xff\xfe{", "config.json is not JSON: 'utf-8' codec can't decode"),
        (b'{"model": 3}', "config.json.model is 3 (int); expected a group of fields"),
        (b'{"trian": {}}', "config.json.trian: unknown field 'trian'; did you mean 'train'?"),
    ],
)
def test_a_config_that_is_none_is_named(content, message, command, tmp_path, capsys):
    (tmp_path / "config.json").write_bytes(content)
    output = ["--output=w.safetensors"] if command == "export" else []
    assert main([command, f"--workdir={tmp_path}", *output]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
