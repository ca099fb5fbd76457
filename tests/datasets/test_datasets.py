"""Data sets, those on disk from small files in their own formats: what is read, and what is refused."""

import gzip
import io
import os
import pickle
import struct
from typing import ClassVar

import numpy as np
import pytest

from kernelfield.cli import app, main
from kernelfield.datasets import cifar, digits, gaussian, mnist, specs, standardized
from kernelfield.files import config
from kernelfield.report.reproduce import find_source

PIXELS = 3072


# --- digits and gaussian


def test_digits_are_standardized_and_ordered_by_class():
    problem = digits(classes=(3, 8), points=10, seed=1)
    assert problem.y.tolist() == [1] * 5 + [-1] * 5 and problem.X.shape == (10, 64)
    assert np.isclose(problem.X.mean(), 0) and np.isclose(problem.X.std(), 1)
    assert np.array_equal(problem.X, digits((3, 8), 10, seed=1).X)
    assert not np.array_equal(problem.X, digits((3, 8), 10, seed=2).X)


def test_more_than_two_digits_have_an_output_each():
    problem = digits(classes=(7, 1, 4), points=6)
    assert problem.y.tolist() == np.eye(3)[[0, 0, 1, 1, 2, 2]].tolist() and problem.loss.name == "mse"
    np.testing.assert_allclose(np.corrcoef(problem.X[0], digits(classes=(7, 0), points=2).X[0])[0, 1], 1)
    every = digits(classes=range(10), points=20, loss="cross_entropy")
    assert every.y.shape == (20, 10) and every.loss.name == "cross_entropy" and every.outputs == 10


def test_the_loss_chooses_the_targets_of_two_digits():
    for loss in ("mse", "logistic", "hinge"):
        assert digits(points=4, loss=loss).y.tolist() == [1, 1, -1, -1]
    entropy = digits(classes=(3, 8), points=4, loss="cross_entropy")
    assert entropy.y.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    np.testing.assert_array_equal(entropy.X, digits(classes=(3, 8), points=4).X)


@pytest.mark.parametrize("settings", [{"classes": (5, 0, 9)}, {"classes": (8, 3), "loss": "cross_entropy"}])
def test_a_report_recognizes_digits_of_several_outputs(settings):
    found = find_source(digits(points=6, seed=2, **settings))
    assert found.known and found.data == specs.DigitsData(points=6, seed=2, **settings)


@pytest.mark.parametrize("pool", [1, 2, 4, 8])
def test_digits_as_images_are_the_flat_ones_with_axes(pool):
    flat, images = (digits((3, 8), 10, seed=1, images=images, pool=pool) for images in (False, True))
    side = 8 // pool
    assert flat.X.shape == (10, side**2)
    np.testing.assert_array_equal(images.X, flat.X.reshape(10, side, side, 1))
    assert images.y.tolist() == flat.y.tolist()


@pytest.mark.parametrize("pool", [2, 4])
def test_pooled_digits_are_means_of_blocks(pool):
    whole = digits((3, 8), 10, seed=1, images=True).X
    blocks = [
        [
            image[row : row + pool, column : column + pool].mean()
            for row in range(0, 8, pool)
            for column in range(0, 8, pool)
        ]
        for image in whole
    ]
    np.testing.assert_allclose(digits((3, 8), 10, seed=1, pool=pool).X, standardized(blocks), atol=1e-12)


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("pool", [1, 2, 4])
def test_a_report_recognizes_digits_that_were_pooled_or_made_as_images(images, pool):
    found = find_source(digits((8, 3), 6, seed=5, images=images, pool=pool)).data
    assert found == specs.DigitsData(classes=(8, 3), points=6, seed=5, images=images, pool=pool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: digits(classes=(1, 1)), "classes must be two or more different digits"),
        (lambda: digits(classes=(1, 10)), "classes must be two or more different digits"),
        (lambda: digits(pool=3), "pool must divide the sides of the images, 8 x 8, got 3"),
        (lambda: digits(pool=0), "pool must divide the sides of the images, 8 x 8, got 0"),
        (lambda: digits(points=3), "points must be an even number in 2.."),
        (lambda: digits(classes=(0, 1, 2), points=20), "points must be a multiple of 3 in 3.."),
        (lambda: digits(classes=(0, 1, 2), points=3, loss="logistic"), "the loss 'logistic' needs targets of -1 and 1"),
        (lambda: digits(points=10**4), "points must be an even number in 2.."),
        (lambda: gaussian(0, 2), "points must be at least 1, got 0"),
        (lambda: gaussian(2, 0), "dimensions must be at least 1, got 0"),
        (lambda: standardized(np.ones((2, 2))), "all equal cannot be standardized"),
    ],
)
def test_bad_datasets_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- CIFAR-10


def pictures(count, seed=0, labels=None):
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
    pixels, labels = pictures(60)
    write(tmp_path / f"data_batch_1{suffix}", pixels, labels)
    return tmp_path, suffix, write, pixels, labels


def test_the_first_images_of_each_class_are_read_and_standardized(written):
    folder, _, _, pixels, labels = written
    problem = cifar(folder, classes=(7, 3), points=4)
    chosen = [*np.flatnonzero(labels == 7)[:2], *np.flatnonzero(labels == 3)[:2]]
    np.testing.assert_array_equal(problem.X, standardized(pixels[chosen] / 255))
    assert problem.y.tolist() == [1, 1, -1, -1]


@pytest.mark.parametrize("pool", [1, 4])
@pytest.mark.parametrize("grey", [False, True])
def test_images_have_rows_columns_and_colours_last(tmp_path, grey, pool):
    numbers, labels = pictures(20)
    binary_batch(tmp_path / "data_batch_1.bin", numbers, labels)
    chosen = numbers[[0, 10, 1, 11]].reshape(4, 3, 32, 32) / 255.0  # as the file has them: colours, rows, columns
    X, flat = (cifar(tmp_path, points=4, images=images, grey=grey, pool=pool).X for images in (True, False))
    if grey:
        chosen = (chosen[:, :1] + chosen[:, 1:2] + chosen[:, 2:]) / 3
    side = 32 // pool
    truth = np.empty((4, side, side, chosen.shape[1]))
    for point, row, column, colour in np.ndindex(truth.shape):
        rows, columns = (slice(place * pool, (place + 1) * pool) for place in (row, column))
        truth[point, row, column, colour] = np.mean(chosen[point, colour, rows, columns])
    np.testing.assert_allclose(X, standardized(truth), atol=1e-12)
    np.testing.assert_array_equal(X.transpose(0, 3, 1, 2).reshape(4, -1), flat)


def test_later_batches_are_read_when_the_first_one_does_not_hold_enough(written):
    folder, suffix, write, pixels, labels = written
    more, same_labels = pictures(60, seed=1)
    write(folder / f"data_batch_2{suffix}", more, same_labels)
    problem = cifar(folder, points=20)
    chosen = np.concatenate([np.concatenate([pixels[labels == c], more[labels == c]])[:10] for c in (0, 1)])
    np.testing.assert_array_equal(problem.X, standardized(chosen / 255))


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar-10-batches-bin"])
def test_the_folder_above_will_do(tmp_path, name):
    (tmp_path / name).mkdir()
    binary_batch(tmp_path / name / "data_batch_1.bin", *pictures(20))
    assert cifar(tmp_path, points=2).X.shape == (2, PIXELS)


def test_a_batch_that_is_missing_is_named(written):
    folder, suffix, *_ = written
    with pytest.raises(ValueError, match=rf"data_batch_2{suffix} is missing, and .* 14 images"):
        cifar(folder, points=14)


def test_too_few_images_in_all_batches_is_said(tmp_path):
    for number in range(1, 6):
        binary_batch(tmp_path / f"data_batch_{number}.bin", *pictures(20, labels=[0] * 20))
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
    with pytest.raises(ValueError, match=r"classes must be two or more different labels of 0..9, got \[1, 10\]"):
        cifar(tmp_path, classes=(1, 10))
    with pytest.raises(ValueError, match=r"points must be an even number in 2..10000, got 3"):
        cifar(tmp_path, points=3)
    binary_batch(tmp_path / "data_batch_1.bin", *pictures(20))
    with pytest.raises(ValueError, match="pool must divide the sides of the images, 32 x 32, got 5"):
        cifar(tmp_path, points=2, pool=5)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["3", "1"], "holds no CIFAR-10"), (["3", "whitened"], "--cifar is for figures 1 and 4, got 3, whitened")],
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


# --- MNIST


def idx(array):
    """An array of bytes as an IDX file."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def drawn(count=30, side=28):
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (count, side, side)), np.arange(count) % 10


def write_mnist(folder, images, labels, dot="-", ending=""):
    pack = gzip.compress if ending else bytes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"train-images{dot}idx3-ubyte{ending}").write_bytes(pack(idx(images)))
    (folder / f"train-labels{dot}idx1-ubyte{ending}").write_bytes(pack(idx(labels)))


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("dot", "-.")
@pytest.mark.parametrize("place", ["", "MNIST/raw"])
def test_mnist_is_read_from_every_form_of_its_files(tmp_path, place, dot, ending):
    images, labels = drawn()
    write_mnist(tmp_path / place, images, labels, dot, ending)
    problem = mnist(tmp_path, classes=(7, 3), points=4)
    np.testing.assert_array_equal(problem.X, standardized(images[[7, 17, 3, 13]].reshape(4, -1) / 255))
    assert problem.y.tolist() == [1, 1, -1, -1]


@pytest.mark.parametrize("pool", [1, 7])
def test_mnist_as_images_is_the_flat_one_with_axes(tmp_path, pool):
    images, labels = drawn()
    write_mnist(tmp_path, images, labels)
    flat, whole = (mnist(tmp_path, points=4, images=images, pool=pool).X for images in (False, True))
    side = 28 // pool
    np.testing.assert_array_equal(whole, flat.reshape(4, side, side, 1))
    means = [
        [block.mean() for band in np.split(image, side) for block in np.split(band, side, axis=1)] for image in images
    ]
    np.testing.assert_allclose(flat, standardized(np.array(means)[[0, 10, 1, 11]]), atol=1e-12)


def test_more_than_two_classes_of_files_have_an_output_each(tmp_path):
    images, labels = drawn()
    write_mnist(tmp_path, images, labels)
    found = mnist(tmp_path, classes=(7, 3, 0), points=6, loss="cross_entropy")
    np.testing.assert_array_equal(found.X, standardized(images[[7, 17, 3, 13, 0, 10]].reshape(6, -1) / 255))
    assert found.y.tolist() == np.eye(3)[[0, 0, 1, 1, 2, 2]].tolist() and found.loss.name == "cross_entropy"
    pixels, labels = pictures(20)
    binary_batch(tmp_path / "data_batch_1.bin", pixels, labels)
    found = cifar(tmp_path, classes=range(10), points=10)
    np.testing.assert_array_equal(found.X, standardized(pixels[:10] / 255))
    assert found.y.tolist() == np.eye(10).tolist()


IMAGES, LABELS = (idx(array) for array in drawn(20, 4))
WRONG = {
    "no images": (None, LABELS, "holds no MNIST: neither train-images-idx3-ubyte nor its .gz is there"),
    "no labels": (IMAGES, None, r"train-labels-idx1-ubyte is missing \(or .gz\), beside train-images-idx3-ubyte"),
    "empty images": (b"", LABELS, r"images-idx3-ubyte must begin with the magic number 2051 and 3 .*, got nothing"),
    "short header": (IMAGES[:15], LABELS, "images-idx3-ubyte must begin with the magic number 2051 and 3 dimension"),
    "swapped": (LABELS, IMAGES, "labels-idx1-ubyte must begin with the magic number 2049 .*, got 00000803 00000014"),
    "a page": (IMAGES, b"<!doctype html>", "labels-idx1-ubyte must begin with the magic number 2049"),
    "cut off": (IMAGES[:-1], LABELS, "images-idx3-ubyte must be 336 bytes long for 20 x 4 x 4, got 335"),
    "too long": (IMAGES, LABELS + b"0", "labels-idx1-ubyte must be 28 bytes long for 20, got 29"),
    "huge": (IMAGES[:4] + b"\xff" * 12, LABELS, "images-idx3-ubyte must be 792281[0-9]+ bytes long"),
    "other count": (IMAGES, idx(np.arange(10)), "holds 20 images, but .*labels-idx1-ubyte 10 labels"),
    "label 10": (IMAGES, idx(np.arange(20)), r"labels in .*labels-idx1-ubyte must be 0..9, got 0 to 19"),
    "no label 1": (IMAGES, idx(np.zeros(20)), "labels-idx1-ubyte holds no label 1"),
    "nothing": (idx(np.zeros((0, 4, 4))), idx(np.zeros(0)), "labels-idx1-ubyte holds no label 0"),
    "half a gz": (gzip.compress(IMAGES)[:-9], LABELS, "images-idx3-ubyte cannot be decompressed: .*ended before"),
    "changed gz": (gzip.compress(IMAGES)[:-8] + bytes(8), LABELS, "images-idx3-ubyte cannot be decompressed: CRC"),
    "bad gz": (IMAGES, b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 9, "labels-idx1-ubyte cannot be decompressed: .*invalid"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_missing_or_damaged_file_of_mnist_is_named_in_one_sentence(tmp_path, name):
    images, labels, message = WRONG[name]
    for stem, content in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        if content is not None:
            (tmp_path / stem).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        mnist(tmp_path, points=2)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_other_arguments_of_mnist_are_checked(tmp_path):
    write_mnist(tmp_path, *drawn(20, 4))
    for wrong, message in (
        ({"folder": tmp_path / "nowhere"}, "nowhere is not a folder"),
        ({"classes": (1, 10)}, r"classes must be two or more different labels of 0..9, got \[1, 10\]"),
        ({"points": 6}, r"points must be an even number in 2..4, got 6"),
        ({"points": 2, "pool": 3}, "pool must divide the sides of the images, 4 x 4, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            mnist(**{"folder": tmp_path, **wrong})


# --- in configurations and on the command line

RUN = "[network]\ndepth = 1\n[training]\nlearning_rate = 0.1\nsteps = 1\n[data]\n"


def test_folders_are_relative_to_the_configuration_or_given_beside_it(tmp_path, monkeypatch):
    write_mnist(tmp_path / "here", *drawn(20, 4))
    write_mnist(tmp_path / "there", 255 - drawn(20, 4)[0], drawn(20)[1])
    binary_batch(tmp_path / "here" / "data_batch_1.bin", *pictures(20))
    keys = 'folder = "here"\nclasses = [2, 1]\npoints = 4\nimages = true\npool = 2\n'
    (tmp_path / "mnist.toml").write_text(f'{RUN}source = "mnist"\n{keys}')
    (tmp_path / "cifar.toml").write_text(f'{RUN}source = "cifar"\n{keys}grey = true')
    settings = {"classes": (2, 1), "points": 4, "images": True, "pool": 2}
    here, there = (mnist(tmp_path / name, **settings).X for name in ("here", "there"))
    np.testing.assert_array_equal(config.read(tmp_path / "mnist.toml").problem().X, here)
    monkeypatch.chdir(tmp_path / "there")
    moved = config.read("../mnist.toml", data=".")
    np.testing.assert_array_equal(moved.problem().X, there)
    assert not np.allclose(here, there) and moved.data.folder == str(tmp_path / "there")
    colours = config.read("../cifar.toml").problem().X
    np.testing.assert_array_equal(colours, cifar(tmp_path / "here", grey=True, **settings).X)
    assert config.read("../cifar.toml", data=".").data.folder == str(tmp_path / "there")


@pytest.mark.parametrize(
    "command",
    [
        ["solve", "run.toml", "-o", "a.nc"],
        ["train", "run.toml", "-o", "a.nc", "--width", "4"],
        ["sweep-gamma", "run.toml", "-o", "a.png", "--gamma0", "1"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_that_reads_a_configuration_takes_its_data_from_elsewhere(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "_cache_compilations", lambda: None)
    write_mnist(tmp_path / "good", *drawn(20, 4))
    (tmp_path / "empty").mkdir()
    for source, message in (
        ('source = "mnist"\nfolder = "good"', f"[data] {tmp_path / 'empty'} holds no MNIST"),
        ('source = "digits"', "run.toml: --data is for [data] with source cifar or mnist, got digits"),
    ):
        (tmp_path / "run.toml").write_text(RUN + source)
        with pytest.raises(SystemExit) as stopped:
            main([*command, "--data", "empty"])
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and message in error and error.count("\n") == 1
