import pytest
from report_pages import solved

import kernelfield as kf
from kernelfield import report


@pytest.fixture(scope="session")
def pair():
    """Infinite width, sampled, and finite networks beside it."""
    fields = range(6)
    return {
        "infinite": solved(kf.March(particles=64), "tanh", fields_at=fields),
        "finite": solved(kf.FiniteWidth(width=32, seeds=3), "tanh", fields_at=fields),
    }


@pytest.fixture(scope="session")
def page_file(pair, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.write(path, pair)
    return path
