"""A small run, on this process or on a Ray cluster of three nodes, and what may happen to it."""

import os
import signal
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np

from fgvce_jax.data.digits import Digits
from fgvce_jax.data.pipeline import image_loader
from fgvce_jax.heads import PooledLinear
from fgvce_jax.models import ModelSpec, build, save_classifier
from fgvce_jax.results import read_run
from fgvce_jax.run_worker import open_worker

ROOT = Path(__file__).parents[1]


def save_classifier_of_digits(folder):
    """Random features, and a linear discriminant on them that is wrong about every fourth digit."""
    train = Digits("train")
    spec = ModelSpec("small_resnet", widths=(8, 16), blocks=(1, 1), stem_stride=2)
    clf = build(spec, 10, 32, jax.random.key(1), class_names=train.class_names)
    load = image_loader(train, 64, 32)
    pool = jax.jit(lambda clf, images: clf.features(images).mean((1, 2)))
    pooled = np.concatenate([pool(clf, images) for _, images in load(np.arange(len(train)))])
    means = np.stack([pooled[train.labels == k].mean(0) for k in range(10)])
    kernel = np.linalg.solve(np.cov((pooled - means[train.labels]).T), means.T)
    bias = -0.5 * (means.T * kernel).sum(0)
    save_classifier(replace(clf, head=PooledLinear(jnp.float32(kernel), jnp.float32(bias))), folder)


def explain_digits(classifier):
    """`fgvce explain` of digits in 15 parts."""
    return [
        *("explain", "--data.name", "digits", "--model.checkpoint", str(classifier)),
        *("--limit", "120", "--batch_size", "8", "--part_size", "8"),
        *("--bank.per_class", "2", "--bank.top_m", "3"),
    ]


def open_slowly(pause, *arguments, far=False, slow=None):
    """A worker whose parts take `pause` seconds longer, so that something can happen.

    A `far` one does not see the run's folder. The first one to find no file `slow` is ten times
    as slow.
    """
    worker = open_worker(*arguments)
    if slow is not None:
        with suppress(FileExistsError):
            os.close(os.open(slow, os.O_CREAT | os.O_EXCL))
            pause *= 10
    if far:
        worker._mark = Path("/nowhere")
    explain = worker.explain

    def explain_slowly(*arguments):
        time.sleep(pause)
        return explain(*arguments)

    worker.explain = explain_slowly
    return worker


def environment():
    """In which other processes find the package and this module."""
    paths = (str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH"))
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def three_nodes():
    """A cluster of three nodes of one processor each, and a head that only keeps books."""
    from ray.cluster_utils import Cluster

    with patch.dict(os.environ, environment()):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        try:
            for _ in range(3):
                cluster.add_node(num_cpus=1)
            yield cluster
        finally:
            cluster.shutdown()


def busy_workers():
    """Processes of this one's cluster that do a task right now."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if path.joinpath("cmdline").read_bytes().startswith(b"ray::_Actor.call"):
                found.append(int(path.name))
    return [pid for pid in found if os.getpid() in _ancestors(pid)]


def _ancestors(pid):
    with suppress(OSError):
        while pid > 1:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            yield pid


def kill_a_busy_worker(driver):
    """SIGKILL, as soon as there is one."""
    while not (found := busy_workers()):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.02)
    os.kill(found[0], signal.SIGKILL)


def wait_for_parts(driver, folder, count):
    """Return once so many parts of a driver's run are on the disk."""
    while len(list((folder / "parts").glob("part-*"))) < count:
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.02)


def timeless_differences(ours, theirs):
    """Where two runs differ by a byte: whole files, but for the times in one of them."""
    names = ("predictions.parquet", "maps.parquet")
    found = [name for name in names if (ours / name).read_bytes() != (theirs / name).read_bytes()]
    left, right = read_run(ours), read_run(theirs)
    if not left.table.drop_columns(["time_s"]).equals(right.table.drop_columns(["time_s"])):
        found.append("explanations.parquet")
    return found + [name for name in ("counts", "skipped") if left.info[name] != right.info[name]]
