"""Networks of other libraries and functions of a user's file, measured by the same evaluator."""

import pathlib
import re

import jax
import numpy as np
import pytest
from PIL import Image

import invariance_jax as ij
from invariance_jax import models
from invariance_jax.__main__ import main
from invariance_jax.errors import UserError
from invariance_jax.evaluation import results

EVALUATE = pathlib.Path(__file__).parents[2] / "configs" / "evaluate.py"
CODE = """
import numpy as np
import jax.numpy as jnp

KERNEL = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def on_host(images):
    return np.square(np.asarray(images, np.float32)[:, ::2, ::2].mean(1)).reshape(len(images), -1)


def traced(images):
    return jnp.square(images[:, ::2, ::2].mean(1)).reshape(len(images), -1)


def scalar(images):
    return np.float32(0)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
        coarse.resize((40, 36), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("function", ["on_host", "traced"])
def test_a_function_of_a_file_is_a_model(function, file, photos):
    model = models.load_model(f"{file}:{function}", image_size=16)
    assert model.num_classes is None and model.differentiable == (function == "traced")
    images = np.random.default_rng(1).random((3, 16, 16, 3), np.float32)
    expected = np.square(images[:, ::2, ::2].mean(1)).reshape(3, -1)
    np.testing.assert_allclose(model(images), expected, rtol=1e-5)
    options = {"transforms": {"rotate": ij.TRANSFORMS["rotate"]}, "progress": False}
    found = ij.measure(model, photos, **options)
    same = ij.measure(
        lambda x: (x[:, ::2, ::2].mean(1) ** 2).reshape(len(x), -1),
        *(photos,),
        **options,
        image_size=16,
    )
    np.testing.assert_allclose(found.relative_invariance, same.relative_invariance, atol=1e-5)


def test_the_command_measures_a_function_on_a_folder_without_labels(file, photos, tmp_path, capsys):
    workdir = tmp_path / "run"
    flags = [
        *(f"--config={EVALUATE}:{file}:on_host", f"--workdir={workdir}"),
        *("--config.data.name=folder", f"--config.data.data_dir={photos}"),
        *("--config.eval.split=all", "--config.data.validation_split=all", "--config.mesh.data=1"),
        *("--config.data.image_size=16", "--config.data.resize_size=18"),
        *("--config.eval.test_time=()", "--config.eval.per_device_batch_size=4"),
        "--config.eval.local_equivariance=('rotate',)",
    ]
    assert main(["evaluate", *flags]) == 0
    said = capsys.readouterr().out
    assert "mean 0 0 0, standard deviation 1 1 1 (a function of images in [0, 1]" in said
    assert "mine.py:on_host runs in the host" in said
    assert "local_equivariance is left out: " in said and "cannot differentiate" in said
    assert "accuracy is left out: " in said
    (path,) = (workdir / "invariance").glob("*.nc")
    found = results.read(path)
    assert found.attrs["augmentation"] == "weights as published"
    # What the file holds now is another network.
    file.write_text(CODE.replace("default_rng(0)", "default_rng(1)"))
    assert main(["evaluate", *flags]) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.py:f", "model 'none.py:f': cannot read none.py: No such file"),
        ("{file}:missing", "has no attribute 'missing'"),
        ("{file}:scalar", "gave shape () for 2 images; expected [2, D]"),
        ("{broken}:f", "SyntaxError: "),
        ("keras:resnet50", "cannot read 'keras:resnet50'; expected a name or name(option=value"),
    ],
)
def test_mistakes_are_one_line(name, message, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    broken = tmp_path / "broken.py"
    broken.write_text("def f(:\n")
    with pytest.raises(UserError, match=re.escape(message)):
        models.load_model(name.format(file=file, broken=broken), image_size=16)


def test_such_a_network_cannot_be_trained(file, capsys):
    digits = EVALUATE.with_name("digits.py")
    flags = [f"--config={digits}", f"--config.model.name={file}:traced", "--workdir=x"]
    assert main(["train", *flags]) == 2
    assert "can be measured, not trained; expected one of: " in capsys.readouterr().err


def test_a_network_of_timm(tmp_path):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=7).eval()
    weights = tmp_path / "r.pth"
    torch.save(network.state_dict(), weights)
    with pytest.raises(Exception, match="resnet18"):
        models.load_model("timm:resnet18", weights)  # of 7 classes, not of 1000
    torch.save(timm.create_model("resnet18").eval().state_dict(), weights)
    model = models.load_model("timm:resnet18", weights, image_size=64)
    ours = {key: value.numpy() for key, value in torch.load(weights).items()}
    variables = models.import_weights("resnet18", ours)
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    inputs = jax.jit(model.normalize)(images)
    logits, features = jax.jit(model.apply)({}, inputs)
    expected, ours = models.create("resnet18", 1000).apply(variables, inputs, train=False)
    np.testing.assert_allclose(features["embedding"], ours["embedding"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    assert model.num_classes == 1000 and model.runs_on.startswith("PyTorch")


def test_a_network_of_torchvision(tmp_path):
    torchvision, torch = pytest.importorskip("torchvision"), pytest.importorskip("torch")
    network = torchvision.models.vit_b_32(image_size=224).eval()
    weights = tmp_path / "v.pth"
    torch.save(network.state_dict(), weights)
    model = models.load_model("torchvision:vit_b_32", weights)
    images = np.random.default_rng(0).random((2, 224, 224, 3), np.float32)
    inputs = jax.jit(model.normalize)(images)
    logits, features = jax.jit(model.apply)({}, inputs)
    with torch.no_grad():
        expected = network(torch.from_numpy(np.array(inputs)).permute(0, 3, 1, 2))
        again = network.heads(torch.from_numpy(np.array(features["embedding"])))
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(again, expected, rtol=1e-3, atol=1e-4)
