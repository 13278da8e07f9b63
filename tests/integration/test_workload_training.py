"""ml_training: sizes of its models, losses that fall, trainings that fail, and limits."""

import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mesh.kinds.ml_training import MlTrainingPayload, parameters
from mesh.kinds.table import validate
from node.executor.context import InputFault
from node.executor.worker_main import error_of
from node.workloads.ml_training import DidNotLearn
from node.workloads.training import models
from node.workloads.training.data import TEXT_FLOOR, open_source
from tests.trainings import CONTEXT, SMALL_IMAGES, TINY, count, trained

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path):
    return partial(trained, tmp_path)


# --- models ----------------------------------------------------------------------------------------


def test_resnet50_is_that_of_the_paper():
    assert count({"model": "resnet50", "classes": 1000}) == 25_557_032
    with torch.device("meta"):
        state = models.resnet50(1000).state_dict()
    # The names of torchvision, whose wheel can't be loaded beside PyTorch's CPU build: 267 weights and 53 counters.
    assert len(state) == 320 and state["layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
    assert state["layer2.0.downsample.0.weight"].shape == (512, 256, 1, 1) and state["fc.weight"].shape == (1000, 2048)
    # 4.09 billion multiplications forward, and twice that backward except for the gradients of the images.
    forward = 4.089e9
    assert math.isclose(
        models.flops(MlTrainingPayload(model="resnet50", classes=1000, batch=1)), 6 * forward, rel_tol=0.02
    )


def test_the_transformer_is_gpt2_of_124_million():
    assert count({"model": "transformer"}) == 124_439_808
    with torch.device("meta"):
        names = models.transformer(50257, 1024, 12, 768, 12).state_dict().keys()
    assert {"wte.weight", "wpe.weight", "h.11.attn.c_attn.weight", "h.0.mlp.c_proj.bias", "ln_f.weight"} <= names


@pytest.mark.parametrize("payload", [{}, {"layers": 1, "width": 7}, {"layers": 5, "classes": 3}, TINY, SMALL_IMAGES])
def test_parameters_are_counted_without_pytorch(payload):
    assert parameters(validate("ml_training", payload).model_dump()) == count(payload)


def test_tokens_are_predicted_from_earlier_ones_alone():
    torch.manual_seed(0)
    model = models.transformer(256, 16, 2, 32, 2)
    tokens = torch.randint(256, (1, 16))
    changed = tokens.clone()
    changed[0, 10] = (changed[0, 10] + 1) % 256
    before, after = model(tokens), model(changed)
    assert torch.equal(before[0, :10], after[0, :10]) and not torch.allclose(before[0, 10], after[0, 10])


# --- learning --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "unit", "below"),
    [
        ({"steps": 100}, "samples_per_s", 0.3),
        ({"steps": 200, "optimizer": "sgd", "precision": "fp32"}, "samples_per_s", 0.3),
        (TINY | {"steps": 60, "learning_rate": 1e-2}, "tokens_per_s", 3.0),
        (SMALL_IMAGES | {"steps": 20}, "images_per_s", 0.9),
    ],
)
def test_each_model_learns(run, payload, unit, below):
    updates = []
    result = run(payload, progress=lambda fraction, note="": updates.append((fraction, note)))
    assert result["loss_fell"] is True and result["loss_last"] < below < result["loss_first"], result
    assert result["loss_floor"] is None or result["loss_last"] > result["loss_floor"]
    assert [step for step, _ in result["losses"]][-1] == result["steps"] == payload["steps"]
    assert result[unit] > 0 and result["gflops"] > 0 and result["peak_memory_mb"] > 100
    assert updates[-1][0] == 1 and updates[-1][1].startswith(f"step {payload['steps']} of {payload['steps']}, loss ")


@pytest.mark.parametrize("payload", [{"steps": 60}, {"steps": 200, "batch": 16}, TINY | {"steps": 40}])
def test_a_training_whose_loss_does_not_fall_fails(run, payload):
    with pytest.raises(DidNotLearn, match=r"did not fall: from .* try another learning_rate \(it was 0\)"):
        run(payload | {"learning_rate": 0})


def test_too_few_steps_give_no_verdict(run):
    result = run({"steps": 4})
    assert result["loss_fell"] is None and "4 steps are too few" in result["loss_words"]


def test_a_time_limit_ends_a_training(run):
    result = run({"seconds": 1.0})  # a step takes milliseconds, on a busy machine tens of them
    assert 1.0 <= result["seconds"] < 3 and result["steps"] > 10


def test_the_same_seed_gives_the_same_losses_and_another_one_others(run):
    payload = {"steps": 12, "precision": "fp32"}
    assert run(payload)["losses"] == run(payload)["losses"] != run(payload | {"seed": 1})["losses"]


def test_generated_text_has_the_stated_entropy(run):
    payload = validate("ml_training", TINY | {"context": 512, "batch": 256})
    tokens, following = open_source(payload, CONTEXT, "cpu").batch(0)
    pairs = np.zeros((256, 256))
    np.add.at(pairs, (tokens.flatten().numpy(), following.flatten().numpy()), 1)
    shares = pairs / pairs.sum()
    before = shares.sum(axis=1, keepdims=True)
    entropy = -np.sum(shares[shares > 0] * np.log((shares / np.where(before, before, 1))[shares > 0]))
    assert abs(entropy - TEXT_FLOOR) < 0.01 and abs(TEXT_FLOOR - 1.75 * math.log(2)) < 1e-12


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_an_absent_device_is_unavailable_and_not_an_input_fault(run):
    with pytest.raises(ImportError, match="it has no cuda device for PyTorch") as caught:
        run({"device": "cuda"})
    assert error_of("ml_training", caught.value).code == "unavailable"
    with pytest.raises(InputFault, match="fp16 needs CUDA"):
        run({"precision": "fp16"})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_each_precision_learns_on_cuda(run, precision):
    result = run({"device": "cuda", "precision": precision, "steps": 100})
    assert result["loss_fell"] and result["device"] == "cuda" and result["precision"] == precision


@pytest.mark.parametrize("absent", ["torch", "numpy"])
def test_without_its_libraries_the_kind_says_what_is_absent(absent):
    script = (
        f"import sys; sys.modules['{absent}'] = None\n"
        "from pathlib import Path\n"
        "from mesh.kinds.table import validate\n"
        "from node.executor.worker_main import error_of\n"
        "from node.executor.context import Context, load\n"
        "payload = {'data': b'PK'}\n"
        "try: load('ml_training')(validate('ml_training', payload), Context(1, Path('.')))\n"
        "except ImportError as error: print(error_of('ml_training', error).code, error.name)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"unavailable {absent}"
