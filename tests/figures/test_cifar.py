"""CIFAR-10's own files, faked in both formats: what is read, and what is refused."""

import io
import os
import pickle
import struct
from typing import ClassVar

import numpy as np
import pytest

from kernelfield.cli import app, main
from kernelfield.datasets import cifar, standardized

PIXELS = 3072


def images(count, seed=0, labels=None):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10 if labels is None else np.asarray(labels)
    return rng.integers(0, 256, (count, PIXELS), dtype=np.uint8), labels


class Python2(pickle._Pickler):
    """Writes bytes and text as Python 2 did, which made the real files."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_old(self, thing):
        raw = thing.encode("latin1") if isinstance(thing, str) else thing
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(thing)

    dispatch[bytes] = dispatch[str] = save_old


def python_batch(path, pixels, labels, pickler=Python2):
    batch = {"data": pixels, "labels": [int(label) for label in labels], "batch_label": "training batch 1 of 5"}
    stream = io.BytesIO()
    pickler(stream, protocol=2).dump(batch)
    text = stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")  # as older NumPy wrote it
    path.write_bytes(text)


def binary_batch(path, pixels, labels):
    path.write_bytes(np.column_stack([labels.astype(np.uint8), pixels]).tobytes())


WRITERS = {
    "python 2": ("", python_batch),
    "python 3": ("", lambda path, pixels, labels: python_batch(path, pixels, labels, pickle.Pickler)),
    "binary": (".bin", binary_batch),
}


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    """A folder with the first batch in one of the formats, and its images."""
    suffix, write = WRITERS[request.param]
    pixels, labels = images(60)
    write(tmp_path / f"data_batch_1{suffix}", pixels, labels)
    return tmp_path, suffix, write, pixels, labels


def test_the_first_images_of_each_class_are_read_and_standardized(written):
    folder, _, _, pixels, labels = written
    problem = cifar(folder, classes=(7, 3), points=4)
    chosen = [*np.flatnonzero(labels == 7)[:2], *np.flatnonzero(labels == 3)[:2]]
    np.testing.assert_array_equal(problem.X, standardized(pixels[chosen] / 255))
    assert problem.y.tolist() == [1, 1, -1, -1]


def test_later_batches_are_read_when_the_first_one_does_not_hold_enough(written):
    folder, suffix, write, pixels, labels = written
    more, same_labels = images(60, seed=1)
    write(folder / f"data_batch_2{suffix}", more, same_labels)
    problem = cifar(folder, points=20)
    chosen = np.concatenate([np.concatenate([pixels[labels == c], more[labels == c]])[:10] for c in (0, 1)])
    np.testing.assert_array_equal(problem.X, standardized(chosen / 255))


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar-10-batches-bin"])
def test_the_folder_above_will_do(tmp_path, name):
    (tmp_path / name).mkdir()
    binary_batch(tmp_path / name / "data_batch_1.bin", *images(20))
    assert cifar(tmp_path, points=2).X.shape == (2, PIXELS)


def test_a_batch_that_is_missing_is_named(written):
    folder, suffix, *_ = written
    with pytest.raises(ValueError, match=rf"data_batch_2{suffix} is missing, and .* 14 images"):
        cifar(folder, points=14)


def test_too_few_images_in_all_batches_is_said(tmp_path):
    for number in range(1, 6):
        binary_batch(tmp_path / f"data_batch_{number}.bin", *images(20, labels=[0] * 20))
    with pytest.raises(ValueError, match=r"the five batches .* do not hold 2 images of each of the classes \[0, 1\]"):
        cifar(tmp_path, points=4)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, protocol):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    text = pickle.dumps({"data": Attack(), "labels": []}, protocol=protocol)
    (tmp_path / "data_batch_1").write_bytes(text)
    with pytest.raises(ValueError, match=r"not a CIFAR-10 batch.*mkdir is not allowed"):
        cifar(tmp_path)
    assert not (tmp_path / "attacked").exists()
    pickle.loads(text)  # the attack is real
    assert (tmp_path / "attacked").exists()


GOOD = pickle.dumps({b"data": np.zeros((2, PIXELS), np.uint8), b"labels": [0, 1]}, protocol=2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_1", GOOD[:-100], "not a CIFAR-10 batch in Python's format"),
        ("data_batch_1", b"<html>", "not a CIFAR-10 batch in Python's format"),
        ("data_batch_1", b"", "not a CIFAR-10 batch in Python's format"),
        ("data_batch_1", pickle.dumps([1, 2]), "not a CIFAR-10 batch in Python's format"),
        ("data_batch_1", pickle.dumps({b"labels": [1]}), "not a CIFAR-10 batch in Python's format"),
        ("data_batch_1", pickle.dumps({b"data": [1], b"labels": [1]}), "a row of 3072 bytes for each of 1 labels"),
        ("data_batch_1", GOOD.replace(b"K\x01e", b"K\x0be"), "labels in .* must be 0..9, got 0 to 11"),
        ("data_batch_1.bin", b"", "multiple of 3073 bytes long, got 0"),
        ("data_batch_1.bin", bytes(3074), "multiple of 3073 bytes long, got 3074"),
        ("data_batch_1.bin", b"\x0a" + bytes(3072), "must be 0..9, got 10 to 10"),
    ],
)
def test_a_damaged_file_is_named_in_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        cifar(tmp_path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_other_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        cifar(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no CIFAR-10: neither data_batch_1 nor data_batch_1.bin"):
        cifar(tmp_path)
    with pytest.raises(ValueError, match=r"classes must be two different labels of 0..9, got \[1, 10\]"):
        cifar(tmp_path, classes=(1, 10))
    with pytest.raises(ValueError, match=r"points must be an even number in 2..10000, got 3"):
        cifar(tmp_path, points=3)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["3", "1"], "holds no CIFAR-10"), (["3", "whitened"], "--cifar is for figure 1, got 3, whitened")],
)
def test_the_command_refuses_before_any_run(tmp_path, monkeypatch, capsys, names, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "_cache_compilations", lambda: None)
    monkeypatch.setattr("kernelfield.figures.FIGURES", dict.fromkeys(["1", "3", "whitened"], pytest.fail))
    with pytest.raises(SystemExit) as stopped:
        main(["figures", *names, "--cifar", str(tmp_path)])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
