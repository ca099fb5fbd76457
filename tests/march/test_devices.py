"""One solve on several devices, of one process and of two, against one device: the same sums in another order."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

import kernelfield as kf
from commands import exit_code
from kernelfield.march import devices

ON_SIX_DEVICES = """
import json, re
import jax, numpy as np
import kernelfield as kf
from kernelfield.march import devices

found = {}

def refused(wrong):
    try:
        wrong()
    except ValueError as error:
        return str(error)

found["no cluster"] = refused(devices.join)  # before a device is used

programs, compiled = [], devices.Placement.compiled

def listed(*arguments, **options):
    programs.append(compiled(*arguments, **options))
    return programs[-1]

devices.Placement.compiled = listed

def mesh(count):
    return jax.set_mesh(jax.make_mesh((count,), ("particles",), devices=jax.devices()[:count]))

def count(hlo):
    found = re.search(r"num_partitions=(\\d+)", hlo)
    return int(found.group(1)) if found else 1

def solved(activation, steps):
    problem = kf.Problem(np.random.default_rng(0).standard_normal((3, 4)), [1.0, -1.0, 1.0])
    network = kf.MLP(depth=2, activation=activation)
    training = kf.GradientDescent(learning_rate=0.3, steps=steps)
    begun = len(programs)
    solution = kf.solve(network, problem, training, kf.March(particles=256, replicates=1), progress=False)
    hlo = [program.as_text() for program in programs[begun:]]
    return {
        "f": solution.replicate_predictions.tolist(),
        "Phi": solution.feature_kernel(layer=1, t=-1).tolist(),
        "h": solution.fields(layer=1)["h"].tolist() if activation == "tanh" else [0.0],
        "states": [float(np.linalg.norm(leaf)) for leaf in solution.predictor.arrays().values() if leaf.ndim > 1],
        "ranks": solution.info["feature_ranks"] + solution.info["gradient_ranks"],
        "particles": solution.info["particles"],
        "devices": [count(text) for text in hlo],
        "sums": [line for text in hlo for line in text.splitlines() if " all-reduce(" in line],
        "others": re.findall("all-gather|all-to-all|collective-permute|reduce-scatter", "".join(hlo)),
    }

found["tanh"] = [solved("tanh", steps=6)]  # 256 particles: on one device of the six
with mesh(4):
    found["tanh"].append(solved("tanh", steps=6))
found["linear"] = solved("linear", steps=3)  # on all six
with mesh(6):
    found["uneven"] = refused(lambda: solved("tanh", steps=3))
print(json.dumps(found))
"""


def environment(tmp_path, count=1):
    flags = f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture(scope="module")
def six_devices(tmp_path_factory):
    """What a process with six devices finds."""
    setting = environment(tmp_path_factory.mktemp("six"), count=6)
    command = [sys.executable, "-c", ON_SIX_DEVICES]
    done = subprocess.run(command, capture_output=True, text=True, env=setting, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.thorough
def test_particles_on_several_devices_are_those_on_one(six_devices):
    one, several = six_devices["tanh"]
    assert set(one["devices"]) == {1} and set(several["devices"]) == {4}
    assert several["ranks"] == one["ranks"]
    for quantity in ("f", "Phi", "h", "states"):
        np.testing.assert_allclose(several[quantity], one[quantity], rtol=1e-5, atol=1e-6, err_msg=quantity)


@pytest.mark.thorough
def test_linear_networks_on_all_devices_are_exact(six_devices):
    """Against the algebraic equations; of as many particles as devices can share."""
    several = six_devices["linear"]
    assert set(several["devices"]) == {6} and several["particles"] % 6 == 0
    problem = kf.Problem(np.random.default_rng(0).standard_normal((3, 4)), [1.0, -1.0, 1.0])
    network, training = kf.MLP(depth=2, activation="linear"), kf.GradientDescent(learning_rate=0.3, steps=3)
    exact = kf.solve(network, problem, training, kf.DeepLinear(), progress=False)
    np.testing.assert_allclose(several["f"], exact.replicate_predictions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(several["Phi"], exact.feature_kernel(layer=1, t=-1), rtol=0, atol=1e-12)


@pytest.mark.thorough
def test_devices_add_up_coordinates_and_gather_nothing(six_devices):
    """A device has whole blocks of the tails, which then need no traffic."""
    for each in (six_devices["tanh"][1], six_devices["linear"]):
        assert each["sums"] and not each["others"]
    whole = six_devices["tanh"][1]
    assert not [line for line in whole["sums"] if f",{whole['particles']}]" in line.partition(" all-reduce(")[0]]


@pytest.mark.thorough
def test_particles_that_devices_cannot_share_are_refused(six_devices):
    assert six_devices["uneven"] == "particles must be a multiple of the 6 devices they are split over, got 256"


@pytest.mark.thorough
def test_processes_that_nobody_names_are_found_on_clusters_alone(six_devices):
    message = "--distributed finds other processes on Slurm: elsewhere give --coordinator, --processes and --process"
    assert six_devices["no cluster"] == message


def test_one_device_is_left_alone():
    placement = devices.placement(64)
    assert placement == devices.ONE_DEVICE and not placement.is_split and devices.multiple(177) == 177
    before = signal.getsignal(signal.SIGINT)
    with devices.together() as agreed:
        assert agreed(5) == 5 and signal.getsignal(signal.SIGINT) is before


@pytest.mark.thorough
def test_two_processes_write_what_one_writes(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "kernelfield.cli", "solve", "run.toml", "--processes", "2"]
    command += ["--coordinator", f"127.0.0.1:{port}"]
    several = [
        subprocess.Popen(
            [*command, "--process", str(number), "-o", f"{number}.nc"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(folder),
        )
        for number in range(2)
    ]
    try:
        assert exit_code("solve", "run.toml", "-o", "one.nc", "--quiet") == 0
        printed = [each.communicate(timeout=200) for each in several]
    finally:
        for each in several:
            each.kill()
    assert [each.returncode for each in several] == [0, 0], printed
    assert "wrote 0.nc" in printed[0][0] and "wrote" not in printed[1][0]
    assert (folder / "0.nc").exists() and not (folder / "1.nc").exists()
    two, one = kf.load("0.nc"), kf.load("one.nc")
    assert two.info["feature_ranks"] == one.info["feature_ranks"]
    np.testing.assert_allclose(two.replicate_predictions, one.replicate_predictions, atol=1e-6)
    np.testing.assert_allclose(two.ntk(t=-1), one.ntk(t=-1), atol=1e-5)
    for step in (0, -1):
        np.testing.assert_allclose(two.fields(1, step)["g"], one.fields(1, step)["g"], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--distributed", "--method", "static_ntk"],
            "is for methods on particles, march for instance, got static_ntk",
        ),
        (["--process", "1"], "give --coordinator, --processes and --process together, or none of them on Slurm"),
        (
            ["--coordinator", "host", "--processes", "2", "--process", "0"],
            "--coordinator must be HOST:PORT, got 'host'",
        ),
        (["--coordinator", "host:1", "--processes", "2", "--process", "2"], "must be below --processes = 2, got 2"),
    ],
)
def test_processes_that_do_not_fit_together_are_bad_input(folder, capsys, options, message):
    assert exit_code("solve", "run.toml", "-o", "a.nc", *options) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and not printed.out
    assert not (folder / "a.nc").exists()


def test_processes_take_the_steps_of_the_first_and_stop_together(monkeypatch):
    first = np.array([3, 0])
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr(devices, "process_allgather", lambda own: np.stack([first, own]))
    before = signal.getsignal(signal.SIGINT)
    with devices.together() as agreed:
        assert agreed(7) == 3
        os.kill(os.getpid(), signal.SIGINT)  # of this process
        with pytest.raises(KeyboardInterrupt):
            agreed(7)
        with pytest.raises(KeyboardInterrupt):  # at once, for who presses again
            os.kill(os.getpid(), signal.SIGINT)
    first[1] = 1  # of the other one
    with devices.together() as agreed, pytest.raises(KeyboardInterrupt):
        agreed(7)
    assert signal.getsignal(signal.SIGINT) is before
