"""The files of examples/, as far as they can be tried without a cluster."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parents[1] / "examples"
STUBS = {  # what the script calls, and what they leave in `log`
    "srun": 'echo "srun $@" >> "$LOG"',
    "ray": "exit 0",
    "scontrol": 'echo "scontrol $@" >> "$LOG"',
    "fgvce": 'trap "exit $CODE" TERM; echo "fgvce $@" >> "$LOG"; while true; do sleep 0.05; done',
}


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (2, False)])
def test_the_slurm_script_passes_the_signal_on_and_requeues(tmp_path, code, requeued):
    for name, text in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    log = tmp_path / "log"
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOG": str(log),
        "CODE": str(code),
        "SLURMD_NODENAME": "n1",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_JOB_ID": "42",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
    }
    command = ["bash", str(EXAMPLES / "slurm.sh"), "--out", "a folder"]
    job = subprocess.Popen(command, env=environment)
    while not (log.exists() and "fgvce" in log.read_text()):
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=20) == code
    lines = log.read_text().splitlines()
    assert "fgvce explain --ray n1:6379 --out a folder" in lines
    assert ("scontrol requeue 42" in lines) == requeued
    nodes = sorted(line for line in lines if line.startswith("srun"))
    assert "ray start --head --port=6379 --num-cpus=16 --num-gpus=4" in nodes[0]
    assert "--nodes=2 --ntasks=2 --exclude=n1" in nodes[1]
    assert "ray start --address=n1:6379 --num-cpus=16 --num-gpus=4" in nodes[1]


def test_the_cluster_is_one_that_ray_knows_how_to_launch():
    ray = pytest.importorskip("ray")
    jsonschema = pytest.importorskip("jsonschema")
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    cluster = yaml.safe_load((EXAMPLES / "ray_cluster.yaml").read_text())
    jsonschema.validate(cluster, json.loads(schema.read_text()))
    assert cluster["head_node_type"] in cluster["available_node_types"]
