"""Memory is bounded, and several fits may run at once."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from compress.kmeans import fit
from compress.kmeans.threads import in_threads

SCRIPT = """
import torch
from compress.kmeans import fit
def peak():  # VmHWM: ru_maxrss is inherited from the parent
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
x = torch.randn(294912, 8)
fit(x[:20000], 256, iterations=2)  # compiles, and warms the allocator
before = peak()
fit(x, 256, iterations=2, **{options})
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("options", [{}, {"sample": None}])
def test_a_fit_of_294912_blocks_needs_less_than_50_mb(options):
    script = SCRIPT.replace("{options}", repr(options))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 1.0 < float(run.stdout) < 50.0


def test_fits_in_several_threads_do_not_disturb_each_other(gaussian):
    points = [gaussian(seed=s, n=20000) for s in range(6)]
    expected = [fit(x, 20, iterations=3).codebook for x in points]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda x: fit(x, 20, iterations=3).codebook, points))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_gets_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    in_threads(lambda job: None, 8)  # the parent's pool exists
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a pool without threads would wait for ever
        done = []
        in_threads(done.append, 8)
        os._exit(0 if sorted(done) == list(range(8)) else 1)
    assert os.waitpid(child, 0)[1] == 0
