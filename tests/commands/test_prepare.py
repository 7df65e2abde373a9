"""`prepare`: what is wrong with ImageNet's archives is said before hours are spent."""

import importlib.util
import io
import subprocess
import sys
import tarfile

import pytest
from PIL import Image

from invariance_jax.__main__ import main
from invariance_jax.commands import prepare
from invariance_jax.data import archives, load_source
from invariance_jax.errors import UserError

SYNSETS = ("n01440764", "n01443537", "n01484850")
BOTH = (archives.TRAIN, archives.VALIDATION)


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (number, 2 * number, 255 - number)).save(file, "JPEG", quality=100)
    return file.getvalue()


def tar(members) -> bytes:
    """An archive of (name, bytes) pairs; a folder where bytes is None."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data or b"")
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            archive.addfile(info, io.BytesIO(data or b""))
    return file.getvalue()


def synset_tar(synset: str, count: int = 2) -> tuple[str, bytes]:
    images = [(f"{synset}_{i}.JPEG", jpeg(10 * i + 1)) for i in range(count)]
    return f"{synset}.tar", tar(images)


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def validation_tar(numbers) -> bytes:
    return tar([(val_name(number), jpeg(number)) for number in numbers])


TRAIN_TAR = tar([synset_tar(synset) for synset in SYNSETS])
VALIDATION_TAR = validation_tar([2, 1, 3])  # in any order


@pytest.fixture
def manual_dir(tmp_path):
    folder = tmp_path / "manual"
    folder.mkdir()
    (folder / archives.TRAIN).write_bytes(TRAIN_TAR)
    (folder / archives.VALIDATION).write_bytes(VALIDATION_TAR)
    return folder


def check_train(tmp_path, data: bytes) -> tuple[int, int]:
    path = tmp_path / "train.tar"
    path.write_bytes(data)
    return archives.check_train(path, frozenset(SYNSETS), lambda count: None)


def check_validation(tmp_path, data: bytes) -> int:
    path = tmp_path / "val.tar"
    path.write_bytes(data)
    return archives.check_validation(path, lambda count: None)


def test_whole_archives_are_counted(tmp_path):
    assert check_train(tmp_path, TRAIN_TAR) == (3, 6)
    assert check_validation(tmp_path, VALIDATION_TAR) == 3


def test_progress_counts_the_bytes_of_the_members(tmp_path):
    done = []
    path = tmp_path / "val.tar"
    path.write_bytes(VALIDATION_TAR)
    archives.check_validation(path, done.append)
    assert done == [len(jpeg(number)) for number in (2, 1, 3)]


def test_archives_cut_anywhere_are_refused(tmp_path):
    """At every block: in a header, in data, and between two members, where tarfile sees no end."""
    for check, data in ((check_train, TRAIN_TAR), (check_validation, VALIDATION_TAR)):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            last = archive.getmembers()[-1]
        end = last.offset_data + -(-last.size // 512) * 512
        for size in [*range(0, end + 1, 512), *range(100, end, 1024)]:
            with pytest.raises(UserError, match=r"truncated|holds no image"):
                check(tmp_path, data[:size])
        check(tmp_path, data[: end + 512])


def test_damage_between_two_members_is_found(tmp_path):
    with tarfile.open(fileobj=io.BytesIO(VALIDATION_TAR)) as archive:
        second = archive.getmembers()[1]
    data = bytearray(VALIDATION_TAR)
    data[second.offset : second.offset + 512] = b"\xff" * 512
    with pytest.raises(UserError, match=f"truncated or damaged: .* byte {second.offset}"):
        check_validation(tmp_path, bytes(data))


def test_inner_archive_cut_short_is_named(tmp_path):
    name, inner = synset_tar(SYNSETS[1])
    data = tar([synset_tar(SYNSETS[0]), (name, inner[:1500])])
    with pytest.raises(UserError, match=rf"train.tar, {name} is .*truncated"):
        check_train(tmp_path, data)


def test_compressed_archive_is_refused(tmp_path):
    import gzip

    with pytest.raises(UserError, match="is no tar archive"):
        check_validation(tmp_path, gzip.compress(VALIDATION_TAR))


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [([1, 2, 4], 3), ([2, 3, 4], 1), ([1, 2, 3, 4, 50_000], 5), ([50_000], 1)],
)
def test_gap_among_validation_images_is_refused(tmp_path, numbers, missing):
    with pytest.raises(UserError, match=rf"lacks {val_name(missing)} though later .*position"):
        check_validation(tmp_path, validation_tar(numbers))


@pytest.mark.parametrize(
    "members",
    [
        [("val", None), (val_name(1), b"x")],
        [(f"val/{val_name(1)}", b"x")],
        [(val_name(0), b"x")],
        [(val_name(50_001), b"x")],
        [("ILSVRC2012_val_1.JPEG", b"x")],
        [(val_name(1), b"x"), ("notes.txt", b"x")],
    ],
)
def test_anything_else_among_validation_images_is_refused(tmp_path, members):
    with pytest.raises(UserError, match=r"holds '.*'; expected images .* and nothing else"):
        check_validation(tmp_path, tar(members))


def test_validation_image_twice(tmp_path):
    with pytest.raises(UserError, match=f"holds '{val_name(2)}' twice"):
        check_validation(tmp_path, validation_tar([1, 2, 2]))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("n01440764_1.JPEG", b"x")], "holds 'n01440764_1.JPEG'; expected archives"),
        ([("n01440764", None)], "holds 'n01440764'; expected archives"),
        ([synset_tar("n99999999")], "'n99999999.tar', which is no class of ImageNet 2012"),
        ([synset_tar(SYNSETS[0]), synset_tar(SYNSETS[0])], "holds 'n01440764.tar' twice"),
        (
            [("n01440764.tar", synset_tar(SYNSETS[1])[1])],
            "n01440764.tar holds 'n01443537_0.JPEG'; expected images named 'n01440764_",
        ),
    ],
)
def test_train_archive_of_another_kind(tmp_path, members, message):
    with pytest.raises(UserError, match=message):
        check_train(tmp_path, tar(members))


def test_disk_that_is_too_small(manual_dir, tmp_path):
    size = sum((manual_dir / name).stat().st_size for name in BOTH)
    asked = []

    def free(path):
        asked.append(path)
        return size + 1  # enough for the archives, not for what a disk needs beside them

    with pytest.raises(UserError, match=r"--data_dir '.*new/data' has 0.0 GB free; .* needs about"):
        archives.check_disk(manual_dir, BOTH, tmp_path / "new" / "data", free)
    assert asked == [tmp_path]
    archives.check_disk(manual_dir, BOTH, tmp_path, lambda path: 2 * size)


@pytest.fixture
def tensorflow_found(monkeypatch):
    """The refusals are the same without TensorFlow; only the first check asks for it."""
    monkeypatch.setattr(prepare, "require_tensorflow", lambda: None)


@pytest.mark.parametrize("name", BOTH)
def test_missing_archive(manual_dir, tmp_path, tensorflow_found, capsys, name):
    (manual_dir / name).unlink()
    flags = [f"--manual_dir={manual_dir}", f"--data_dir={tmp_path / 'data'}"]
    assert main(["prepare", *flags]) == 2
    error = capsys.readouterr().err
    assert f"has no {name}; it needs " in error and error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_gap_ends_the_command(manual_dir, tmp_path, tensorflow_found, capsys):
    (manual_dir / archives.VALIDATION).write_bytes(validation_tar([1, 3]))
    flags = [f"--manual_dir={manual_dir}", f"--data_dir={tmp_path / 'data'}"]
    assert main(["prepare", *flags]) == 2
    assert f"invariance-jax: {manual_dir / archives.VALIDATION} lacks {val_name(2)}" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--data_dir is missing"),
        (["--data_dir=x"], "--manual_dir is missing"),
        (["--data_dir=x", "--manual_dir=nowhere"], "--manual_dir is 'nowhere'; expected a folder"),
        (["--data_dir=x", "--dataset=imagenat"], "--dataset is 'imagenat', which TFDS"),
    ],
)
def test_mistakes_in_flags(flags, message, tensorflow_found, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_missing_tensorflow_is_said_first(manual_dir, tmp_path, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorflow" else found(name)
    )
    (manual_dir / archives.TRAIN).unlink()
    flags = [f"--manual_dir={manual_dir}", f"--data_dir={tmp_path / 'data'}"]
    assert main(["prepare", *flags]) == 2
    error = capsys.readouterr().err
    assert "prepare needs tensorflow" in error and "pip install 'invariance_jax[prepare]'" in error


def test_help(capsys):
    assert main(["prepare", "--help"]) == 0
    assert "usage: invariance-jax prepare" in capsys.readouterr().out


def test_prepares_what_is_then_read(manual_dir, tmp_path, monkeypatch):
    """The whole way, with TFDS itself; then the labels are those of ImageNet."""
    pytest.importorskip("tensorflow")
    command = [sys.executable, "-m", "invariance_jax", "prepare"]
    flags = [f"--manual_dir={manual_dir}", f"--data_dir={tmp_path / 'data'}"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "6 images of 3 of 1000 classes" in done.stdout
    again = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert again.returncode == 0 and "is already prepared" in again.stdout

    train = load_source("imagenet2012", "train", data_dir=str(tmp_path / "data"))
    assert len(train) == 6
    examples = {train[i]["name"]: train[i] for i in range(6)}
    for label, synset in enumerate(SYNSETS):
        for i in range(2):
            assert examples[f"{synset}_{i}.JPEG"]["label"] == label
            assert examples[f"{synset}_{i}.JPEG"]["image"] == jpeg(10 * i + 1)
    assert sorted(train.labels().tolist()) == [0, 0, 1, 1, 2, 2]
    assert not (tmp_path / "cache" / "invariance_jax").exists()  # the labels lie beside the data
    validation = load_source("imagenet2012", "validation", data_dir=str(tmp_path / "data"))
    # The first three lines of TFDS's list of validation labels.
    expected = dict(
        zip(map(val_name, (1, 2, 3)), ("n01751748", "n09193705", "n02105855"), strict=True)
    )
    for i in range(3):
        example = validation[i]
        assert validation.class_names[example["label"]] == expected[example["name"]]
