"""kernelfield report, as a user meets it."""

import json
import shutil

import pytest

from commands import exit_code
from kernelfield.cli import app


@pytest.fixture(scope="module")
def results(tmp_path_factory, pair):
    """Files of two results."""
    folder = tmp_path_factory.mktemp("results")
    for name, solution in zip("ab", pair.values(), strict=True):
        solution.save(folder / f"{name}.nc")
    return sorted(folder.iterdir())


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, results):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "_cache_compilations", lambda: None)
    for path in results:
        shutil.copy(path, tmp_path)
    (tmp_path / "broken.nc").write_text("not netcdf")
    return tmp_path


@pytest.mark.thorough
def test_report_writes_a_page_and_says_so(folder, capsys):
    assert exit_code("report", "a.nc", "b.nc", "-o", "page.html", "--title", "Zeros & ones") == 0
    assert capsys.readouterr().out == "wrote page.html\n"
    text = (folder / "page.html").read_text(encoding="utf-8")
    assert "<h1>Zeros &amp; ones</h1>" in text and "Versions that made all results: kernelfield" in text
    assert "kernelfield train run.toml -o b.nc" in text


@pytest.mark.thorough
def test_quiet_and_json(folder, capsys):
    assert exit_code("report", "a.nc", "-o", "page.html", "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert exit_code("report", "a.nc", "-o", "page.html", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"wrote": "page.html", "bytes": (folder / "page.html").stat().st_size, "results": ["a"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.nc", "-o", "page.html"], "none.nc does not exist"),
        (["broken.nc", "-o", "page.html"], "broken.nc is not a NetCDF file, or is damaged"),
        (["a.nc", "-o", "page.txt"], "the page's name must end in .html or .htm, got page.txt"),
        (["a.nc", "-o", "none/page.html"], "the folder none for page.html does not exist"),
        (["a.nc", "a.nc", "-o", "page.html"], "give every result once, got a.nc, a.nc"),
        (["a.nc"], "Missing option '--output'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder, capsys, arguments, message):
    before = sorted(folder.iterdir())
    assert exit_code("report", *arguments) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_ctrl_c_leaves_nothing(folder, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("kernelfield.report.page", stop)
    before = sorted(folder.iterdir())
    assert exit_code("report", "a.nc", "-o", "page.html") == 130
    assert "interrupted: nothing was written" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before
