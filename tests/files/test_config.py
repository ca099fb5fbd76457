"""A configuration file becomes the objects it describes, or one sentence names section and key."""

from pathlib import Path

import numpy as np
import pytest

import kernelfield as kf
from kernelfield.datasets import digits
from kernelfield.files import config

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.toml"
GOOD = {
    "data": 'source = "gaussian"\npoints = 4\ndimensions = 3',
    "network": "depth = 1",
    "training": "learning_rate = 0.1\nsteps = 2",
}


def text(**changed):
    sections = {**GOOD, **changed}
    return "\n".join(f"[{name}]\n{body}" for name, body in sections.items() if body is not None)


def test_the_example_describes_digits():
    read = config.read(EXAMPLE)
    assert read.network == kf.MLP(depth=2, activation="tanh", gamma0=2.0)
    assert read.training == kf.GradientDescent(learning_rate=0.3, steps=50)
    assert isinstance(read.method("march"), kf.March) and isinstance(read.method("finite"), kf.FiniteWidth)
    assert read.problem().X.shape == (20, 64)


def test_writing_and_reading_are_inverse():
    read = config.read(EXAMPLE)
    assert config.parse(read.to_toml(), read.folder) == read
    short = config.parse(text())
    assert config.parse(short.to_toml(), short.folder) == short
    images = config.parse(text(data='source = "cifar"\nfolder = "a \\"b\\""\ngrey = true\nimages = true'))
    assert config.parse(images.to_toml(), images.folder) == images and images.data.folder == 'a "b"'


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (text(network="depht = 1"), r"\[network\] MLP: unknown argument 'depht' \(did you mean 'depth'\?\)"),
        (text(network="depth = 0"), r"\[network\] MLP: depth must be greater than or equal to 1, got 0"),
        (text(network='depth = 1\nactivation = "tahn"'), r"'tahn' is unknown \(did you mean 'tanh'\?\)"),
        (text(network='kind = "MPL"\ndepth = 1'), r"\[network\] 'MPL' is unknown \(did you mean 'MLP'\?\)"),
        (text(network='kind = "March"'), r"\[network\] kind 'March' is not a network"),
        (text(network="gamma0 = 1.0"), r"\[network\] MLP: depth is required"),
        (text(network=None), r"section \[network\] is required"),
        (text(netwerk="depth = 1"), r"unknown section \[netwerk\] \(did you mean 'network'\?\)"),
        ("data = 3\n", r"data must be a section \[data\], got 3"),
        (
            text(data='source = "digit"'),
            r"\[data\] source must be one of digits, cifar, mnist, gaussian, table, got 'digit'",
        ),
        (text(data='source = "digits"\npoint = 3'), r"\[data\] .*'point' \(did you mean 'points'\?\)"),
        (
            text(data='source = "digits"\npool = 0'),
            r"\[data\] DigitsData: pool must be greater than or equal to 1, got 0",
        ),
        (text(data='source = "mnist"'), r"\[data\] MnistData: folder is required"),
        (text(data='source = "mnist"\nfolder = "a"\ngrey = true'), r"\[data\] MnistData: unknown argument 'grey'"),
        (text(training="learning_rate = nan\nsteps = 1"), r"\[training\] .*learning_rate must be"),
        (text(training="learning_rate = 0.1\nsteps = 1\nbatch = 2"), r"\[training\] .*unknown argument 'batch'"),
        (text(training='kind = "Descent"\nlearning_rate = 0.1'), r"\[training\] kind 'Descent' is not a training"),
        (
            text(training='learning_rate = 0.1\nsteps = 1\nschedule = "cosin"'),
            r"\[training\] GradientDescent: schedule must be 'constant', 'linear' or 'cosine', got 'cosin'",
        ),
        (
            text(data='source = "digits"\nloss = "hinged"'),
            r"\[data\] DigitsData: loss 'hinged' is unknown \(did you mean 'hinge'\?\)",
        ),
        (text(network="depth = 2\nwidths = [1]"), r"\[network\] MLP: widths must have 2 numbers for depth 2, got 1"),
        (text(march="particles = 3"), r"\[march\] March: particles must be"),
        (text(finite="seeds = 3"), r"\[finite\] FiniteWidth: width is required"),
        ("[data", "not valid TOML"),
    ],
)
def test_bad_configurations_are_named(toml, message):
    with pytest.raises(ValueError, match=message):
        config.parse(toml)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.toml does not exist"):
        config.read(tmp_path / "none.toml")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        config.read(tmp_path)
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"a\.toml: not a text file"):
        config.read(tmp_path / "a.toml")


def from_file(folder, body):
    (folder / "run.toml").write_text(text(data='source = "table"\n' + body))
    return config.read(folder / "run.toml").problem()


def test_a_csv_file_gives_its_columns(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,y\n1,2,1\n3,5,-1\n\n")
    problem = from_file(tmp_path, 'path = "t.csv"')
    assert problem.X.tolist() == [[1, 2], [3, 5]] and problem.y.tolist() == [1, -1]
    chosen = from_file(tmp_path, 'path = "t.csv"\ninputs = ["b"]\ntarget = "a"\nstandardize = true')
    assert chosen.y.tolist() == [1, 3] and np.allclose(chosen.X.ravel(), [-1, 1])
    assert from_file(tmp_path, 'path = "t.csv"\ninputs = "b"').X.shape == (2, 1)


def test_an_npz_file_gives_its_arrays(tmp_path):
    np.savez(tmp_path / "t.npz", X=np.eye(2), y=[1, 2])
    assert from_file(tmp_path, 'path = "t.npz"').y.tolist() == [1, 2]


def test_a_table_may_have_several_targets_and_another_loss(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,u,v\n1,2,1,0\n3,5,0,1\n")
    problem = from_file(tmp_path, 'path = "t.csv"\ntarget = ["v", "u"]\nloss = "cross_entropy"')
    assert problem.X.tolist() == [[1, 2], [3, 5]] and problem.y.tolist() == [[0, 1], [1, 0]]
    assert problem.loss.name == "cross_entropy"
    assert from_file(tmp_path, 'path = "t.csv"\ntarget = ["v"]').outputs == 1
    with pytest.raises(ValueError, match="target must name at least one column"):
        from_file(tmp_path, 'path = "t.csv"\ntarget = []')
    np.savez(tmp_path / "t.npz", X=np.eye(2), y=np.ones((2, 3)))
    assert from_file(tmp_path, 'path = "t.npz"').outputs == 3
    with pytest.raises(ValueError, match="target must be the name of one array"):
        from_file(tmp_path, 'path = "t.npz"\ntarget = ["y"]')


TRAININGS = [
    'kind = "SGD"\nlearning_rate = 0.1\nbatch_size = 2\nepochs = 3\nreplacement = true\nseed = 4\nschedule = "linear"',
    "learning_rate = 0.1\nsteps = 2\nmomentum = 0.9\nweight_decay = 0.1\nschedule = [1.0, 0.5]",
    'kind = "GradientFlow"\ntime = 2.0',
]


@pytest.mark.parametrize("training", TRAININGS)
def test_all_options_of_a_run_are_written_and_read(training):
    network = 'depth = 2\nbias_scale = 0.1\nweight_scales = [1, 2, 1]\nscales_multiply = "weight"\nwidths = [2, 1]'
    data = 'source = "digits"\nclasses = [0, 1, 2]\npoints = 6\nloss = "cross_entropy"'
    read = config.parse(text(network=network, training=training, data=data))
    assert config.parse(read.to_toml(), read.folder) == read
    assert read.problem().y.shape == (6, 3) and read.network.widths == [2, 1]
    assert isinstance(read.training, (kf.SGD, kf.GradientDescent, kf.GradientFlow))


def test_gaussian_data_take_a_loss():
    read = config.parse(text(data='source = "gaussian"\npoints = 4\ndimensions = 3\nloss = "hinge"'))
    assert read.problem().loss.name == "hinge"


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 4, 5, 3)])
def test_an_npz_file_may_hold_inputs_with_sites_and_channels(tmp_path, shape):
    X = np.random.default_rng(0).standard_normal(shape)
    np.savez(tmp_path / "t.npz", X=X, y=[1, 2])
    np.testing.assert_array_equal(from_file(tmp_path, 'path = "t.npz"').X, X)
    scaled = from_file(tmp_path, 'path = "t.npz"\nstandardize = true').X
    np.testing.assert_allclose(scaled, (X - X.mean()) / X.std())


def test_digits_as_images_are_a_choice_of_the_configuration():
    read = config.parse(text(data='source = "digits"\nclasses = [3, 8]\nseed = 4\nimages = true\npool = 2'))
    np.testing.assert_array_equal(read.problem().X, digits((3, 8), seed=4, images=True, pool=2).X)


@pytest.mark.parametrize(
    ("name", "content", "body", "message"),
    [
        ("t.csv", "a,y\n1,x\n", "", "column 'y' must hold numbers"),
        ("t.csv", "a,y\n1\n", "", "column 'y' lacks 1 of 1 values"),
        ("t.csv", "a,y\n", "", "holds no rows of data"),
        ("t.csv", "", "", "is not a table of separated values"),
        ("t.csv", "a,y\n1,2\n", 'target = "z"', "there is no column 'z'"),
        ("t.csv", "a,y\n1,inf\n", "", "column 'y' must be finite"),
        ("t.csv", "a,y\n1,2\n1,2\n", "standardize = true", "all equal cannot be standardized"),
        ("t.npz", "text", "", "is not a .npz file of numeric arrays, or is damaged"),
        ("t.npz", "text", 'inputs = ["a"]', "inputs must be the name of one array"),
        ("t.txt", "text", "", "path must end in .csv or .npz"),
    ],
)
def test_bad_data_files_are_named(tmp_path, name, content, body, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        from_file(tmp_path, f'path = "{name}"\n{body}')


def test_a_missing_data_file_or_array_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\[data\] .*t\.csv does not exist"):
        from_file(tmp_path, 'path = "t.csv"')
    np.savez(tmp_path / "t.npz", X=np.eye(2))
    with pytest.raises(ValueError, match=r"t\.npz has no column 'y'"):
        from_file(tmp_path, 'path = "t.npz"')
