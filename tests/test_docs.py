"""What the pages say is true: their code runs, their commands exist, the messages they explain are those that come."""

import doctest
import importlib
import re
import shlex
import typing
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import typer

import kernelfield as kf
from kernelfield import datasets, observables
from kernelfield.cli import app as cli
from kernelfield.layers import Activation, AveragePool, Conv, Dense, GlobalAveragePool, Readout, Residual, Sequential
from kernelfield.solution.status import Code
from kernelfield.theories.alternating import AlternatingMonteCarlo

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("*.rst")])
WITH_CODE = [
    path for path in PAGES if re.search(r"^```(python|pycon)$", path.read_text(encoding="utf-8"), re.MULTILINE)
]
TROUBLE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")


def blocks(path, *languages):
    """(language, text) of the fenced blocks of a Markdown page."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [(language, text) for language, text in found if language in languages]


# --- code


@pytest.mark.thorough
@pytest.mark.parametrize("path", WITH_CODE, ids=lambda path: path.stem)
def test_code_of_a_page_runs_and_answers_as_printed(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names, runner, parser = {}, doctest.DocTestRunner(), doctest.DocTestParser()
    for language, text in blocks(path, "python", "pycon"):
        if language == "python":
            exec(compile(text, str(path), "exec"), names)
        else:
            runner.run(parser.get_doctest(text, names, path.name, str(path), 0), clear_globs=False)
    assert runner.summarize().failed == 0


def test_pages_have_code():
    assert {"start", "error-bars", "architectures", "training"} <= {path.stem for path in WITH_CODE}


# --- the command line


def command_lines():
    """Lines of the pages that call the program."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        shell = [block for _, block in blocks(path, "sh")]
        shell += re.findall(r"^\.\. code-block:: sh\n\n((?:   .*\n)+)", text, re.MULTILINE)
        for line in "\n".join(shell).splitlines():
            if line.strip().startswith("kernelfield "):
                yield path.stem, line.partition("#")[0].strip()


COMMANDS = typing.cast(typing.Any, typer.main.get_command(cli.app)).commands


@pytest.mark.parametrize("page, line", list(command_lines()))
def test_commands_of_the_pages_exist_with_their_options(page, line):
    _, name, *arguments = shlex.split(line)
    known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {word for word in arguments if word.startswith("-")} <= known


def test_pages_have_commands():
    assert {"solve", "train", "show", "compare", "figures"} <= {line.split()[1] for _, line in command_lines()}


# --- troubleshooting


def test_every_status_code_is_explained():
    for code in typing.get_args(Code):
        assert re.search(rf"^`{code}`\n: ", TROUBLE, re.MULTILINE), code


def solved(
    method=None,
    y=(1.0, -1.0),
    rate=0.1,
    X=None,
    layers=None,
    loss="mse",
    training=None,
    schedule="constant",
    stream=None,
    checkpoint=None,
    resume=False,
    **network,
):
    network = {"depth": 1, "activation": "linear", **network}
    network = network.pop("kind", kf.MLP)(**network) if layers is None else kf.Network(layers=layers)
    training = training or kf.GradientDescent(learning_rate=rate, steps=3, schedule=schedule)
    problem = kf.Problem(np.eye(len(y)) if X is None else X, y, loss=loss, stream=stream)
    return kf.solve(network, problem, training, method, progress=False, checkpoint=checkpoint, resume=resume)


def batches(size):
    return kf.SGD(learning_rate=0.1, batch_size=size, epochs=2)


SEQUENCES, LINEAR, WEIGHTS = np.ones((2, 5, 1)), Activation("linear"), Dense()
FRESH = np.ones((5, 2)), np.ones(5)
TIED = [Dense(), Activation("tanh"), WEIGHTS, Activation("tanh"), WEIGHTS, Readout()]
BRANCH = Sequential([LINEAR, WEIGHTS])


WRONG = {
    "misspelt": lambda folder: kf.MLP(depth=1, gama0=1.0),
    "not finite": lambda folder: kf.Problem([[np.nan, 1.0]], [1.0]),
    "lengths": lambda folder: kf.Problem(np.eye(3), [1.0, -1.0]),
    "power of two": lambda folder: kf.March(particles=1000),
    "kink": lambda folder: solved(kf.Perturbation(), activation="relu"),
    "not linear": lambda folder: solved(kf.DeepLinear(), activation="tanh"),
    "flow": lambda folder: solved(kf.DeepLinear(), training=kf.GradientFlow(time=1.0, steps=3)),
    "no gradients": lambda folder: solved(kf.March(kernels="features")).gradient_kernel(layer=1),
    "no fields": lambda folder: solved().fields(layer=1, t=2),
    "no such step": lambda folder: solved().feature_kernel(layer=1, t=9),
    "no test points": lambda folder: observables.loss(solved(), "test"),
    "other rate": lambda folder: kf.compare(solved(), solved(rate=0.2)),
    "other targets": lambda folder: kf.compare(solved(), solved(y=(1.0, 1.0))),
    "custom": lambda folder: solved(kf.StaticNTK(), activation=jnp.sin).save(folder / "run.nc"),
    "other networks": lambda folder: solved(kf.DeepLinear(), kind=kf.CNN, X=SEQUENCES),
    "no sites": lambda folder: solved(kind=kf.CNN),
    "odd sites": lambda folder: solved(
        layers=[Conv(), LINEAR, AveragePool(2), GlobalAveragePool(), Readout()], X=SEQUENCES
    ),
    "first layer": lambda folder: kf.Network(layers=[LINEAR, Readout()]),
    "last layer": lambda folder: kf.Network(layers=[Dense(), LINEAR]),
    "shared with data": lambda folder: solved(layers=[WEIGHTS, LINEAR, WEIGHTS, Readout()]),
    "shared far apart": lambda folder: kf.Network(layers=[Dense(), Residual(BRANCH), WEIGHTS, Readout()]),
    "lazy shared": lambda folder: solved(kf.StaticNTK(), layers=TIED),
    "two times": lambda folder: solved(kf.FiniteWidth(width=2, seeds=1), layers=TIED).ntk(t=0, s=1),
    "custom layers": lambda folder: solved(
        kf.FiniteWidth(width=2, seeds=1), layers=[Dense(), Activation(jnp.sin), Readout()]
    ).save(folder / "run.nc"),
    "no batches": lambda folder: solved(kf.StaticNTK(), training=batches(1)),
    "large batch": lambda folder: solved(training=batches(3)),
    "unused stream": lambda folder: solved(stream=FRESH),
    "short stream": lambda folder: solved(
        training=kf.OnlineSGD(learning_rate=0.1, batch_size=2, steps=3), stream=FRESH
    ),
    "step without a state": lambda folder: solved().predict(np.eye(2), step=2),
    "no state": lambda folder: solved(kf.DeepLinear()).predict(np.eye(2)),
    "other features": lambda folder: solved().predict(np.eye(3)[:1]),
    "short schedule": lambda folder: solved(schedule=[1.0]),
    "one output": lambda folder: solved(kf.GradientIndependence(), y=np.eye(2)),
    "not plain": lambda folder: solved(kf.DeepLinear(), bias_scale=0.1),
    "unknown loss": lambda folder: solved(loss="hinged"),
    "no signs": lambda folder: solved(y=(0.0, 1.0), loss="logistic"),
    "no labels": lambda folder: solved(y=(0.5, 1.0), loss="cross_entropy"),
    "no classes": lambda folder: observables.accuracy(solved(y=(0.0, 1.0))),
    "no class of a row": lambda folder: observables.accuracy(solved(y=np.ones((2, 2)))),
    "no checkpoints": lambda folder: solved(kf.StaticNTK(), checkpoint=folder),
    "no checkpoint": lambda folder: solved(resume=True),
    "too many widths": lambda folder: kf.MLP(depth=1, widths=[1.0, 2.0]),
    "other batches": lambda folder: kf.compare(solved(training=batches(1)), solved()),
    "other schedule": lambda folder: kf.compare(solved(schedule="linear"), solved()),
    "other loss": lambda folder: kf.compare(solved(loss="hinge"), solved()),
    "custom loss": lambda folder: solved(loss=lambda f, y: (f - y) ** 4).save(folder / "run.nc"),
    "custom schedule": lambda folder: solved(schedule=lambda t: 1.0).save(folder / "run.nc"),
    "too many times": lambda folder: kf.solve(
        kf.MLP(depth=1),
        kf.Problem(np.eye(5), np.ones(5)),
        kf.GradientDescent(learning_rate=0.1, steps=1000),
        AlternatingMonteCarlo(),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_messages_are_those_that_come(name, tmp_path):
    with pytest.raises(ValueError) as caught:
        WRONG[name](tmp_path)
    explained = re.findall(r"^\| `(.+?)`( \.\.\.)? \|", TROUBLE, re.MULTILINE)
    assert any(str(caught.value).startswith(text) if more else str(caught.value) == text for text, more in explained), (
        str(caught.value)
    )


def test_every_message_is_one_that_comes():
    assert len(re.findall(r"^\| `", TROUBLE, re.MULTILINE)) == len(WRONG)


# --- the reference


@pytest.fixture(scope="module")
def extensions():
    """The extensions of the documentation, by name."""
    pytest.importorskip("sphinx", reason="pip install -e '.[docs]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS / "_ext"))
        return {name: importlib.import_module(name) for name in ("reference", "plain_docstrings")}


def test_every_public_name_has_a_page(extensions):
    documented = extensions["reference"].documented()
    assert {f"kernelfield.{name}" for name in kf.__all__} <= set(documented)
    assert {"kernelfield.observables.kernel_alignment", "kernelfield.files.dataset.to_dataset"} <= set(documented)
    architectures = {f"kernelfield.{name}" for name in ("MLP", "CNN", "ResNet", "Network")}
    assert {documented[name] for name in architectures} == {"describing"}
    for package in (kf.layers, datasets):
        names = {f"{package.__name__}.{name}" for name in package.__all__}
        assert {documented[name] for name in names} == {package.__name__.removeprefix("kernelfield.")}
    pages = extensions["reference"].pages()
    for name, page in documented.items():
        assert re.search(rf"^\.\. auto\w+:: {re.escape(name)}$", pages[page], re.MULTILINE), name


def test_a_name_without_a_page_is_a_warning(extensions, monkeypatch):
    reference, warnings = extensions["reference"], []
    monkeypatch.setattr(reference._log, "warning", lambda text, *rest, **_: warnings.append(text % rest))

    class Environment:
        def __init__(self, names):
            self.objects, self.progoptions = names, {(line.replace(" ", "-"), "x"): 0 for line, *_ in commands}

        def get_domain(self, name):
            return self

    commands = list(reference.commands())
    reference._check(None, Environment(reference.documented()))
    assert not warnings
    reference._check(None, Environment([name for name in reference.documented() if name != "kernelfield.March"]))
    assert warnings == ["kernelfield.March is public but not documented on any page"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("|A - B| / |B|", r"\|A - B\| / \|B\|"),
        ("a rate `learning_rate` * gamma0^2", r"a rate `learning_rate` \* gamma0^2"),
        ("factors F_ and W_F", r"factors F\_ and W_F"),
        ("(R, P) of a thing", r"\(R, P) of a thing"),
        ("an odd ` mark", r"an odd \` mark"),
        ("see arXiv:2205.09653", "see `arXiv:2205.09653 <https://arxiv.org/abs/2205.09653>`__"),
    ],
)
def test_plain_text_is_not_taken_for_markup(extensions, text, expected):
    assert extensions["plain_docstrings"].escaped(text) == expected


def test_docstrings_keep_every_word(extensions):
    lines = """Do it, |x| times.

    h = W |x|

Args:
    x, y: (P,), one
        or two.
    *rest: others.

Returns:
    Of a kind: this.

Raises:
    ValueError: if not.

Source: arXiv:2205.09653, eq. 1,
and more.

Example:
    >>> 1 * 2
    2
""".splitlines()
    text = "\n".join(extensions["plain_docstrings"].converted(lines))
    assert ".. code-block:: text\n\n    h = W |x|" in text
    assert "* **x**, **y** \N{EN DASH} \\(P,), one\n     or two." in text
    assert ":Returns:\n   Of a kind: this." in text and ">>> 1 * 2\n2" in text
    words = " ".join(lines).replace("Args:", "").replace("Example:", "")
    flat = re.sub(r"[\\*`]", "", text)
    assert all(word in flat for word in re.findall(r"\w+", words))
