"""Files are whole or absent."""

import io

import pytest

from invariance_jax import files, progress


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "table.csv"
    files.write_text(path, "first")
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "first"
    assert [each.name for each in path.parent.iterdir()] == ["table.csv"]


def test_a_write_replaces_the_file(tmp_path):
    files.write_text(tmp_path / "a", "1")
    files.write_text(tmp_path / "a", "2")
    assert (tmp_path / "a").read_text() == "2" and len(list(tmp_path.iterdir())) == 1


def test_in_a_log_file_progress_is_lines(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    with progress.bar(total=4, description="training", unit="steps", initial=1) as bar:
        bar.update(3)
    lines = log.getvalue().splitlines()
    assert "\r" not in log.getvalue()
    assert lines[0].startswith("training:  25% 1/4 steps [")
    assert lines[-1].startswith("training: 100% 4/4 steps [") and "steps/s" in lines[-1]
