"""Run the speed benchmarks and write docs/performance.md from their JSON.

python benchmarks/performance.py            # run what is missing, then write the page
python benchmarks/performance.py --docs_only
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import table2
from common import describe

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
RESULTS = DOCS / "results"
RUNS = {
    "throughput": ["throughput.py", "--arch", "resnet50,vgg16", "--batch", "4,16"],
    "throughput_bfloat16": ["throughput.py", "--batch", "16", "--dtype", "bfloat16"],
    "steps": ["steps.py"],
    "scaling": ["scaling.py"],
    "table2": ["table2.py"],
    "input": ["input.py"],
    "agreement": ["agreement.py"],
}
FIGURES = ("throughput", "scaling")


def load(name: str) -> dict[str, Any] | None:
    """A benchmark's JSON, if it was run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, numbers to the right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *rows])


def throughput_rows(result: dict[str, Any]) -> list[list[str]]:
    """A row per setting."""
    return [
        [
            f"{row['arch']}, {row['dtype']}, batch {row['batch']}",
            f"{row['fpe']:.2f}",
            f"{row['forward_images_per_s']:.1f}",
            f"{row['explain_images_per_s']:.1f}",
            f"{row['rest_ms_per_image']:.1f}",
            f"{row['edits'][0]}–{row['edits'][-1]}",
            f"{row['peak_bytes_forward'] / 2**20:.0f}",
            f"{row['peak_bytes_explain'] / row['peak_bytes_forward']:.2f}",
            f"{row['forward_flops_per_s'] / row['matmul_flops_per_s']:.0%}",
        ]
        for row in result["rows"]
    ]


def verdict(met: bool) -> str:
    """A bar's verdict."""
    return "met" if met else "**missed**"


def bars(found: dict[str, Any]) -> list[list[str]]:
    """Every bar with what was measured."""
    throughput, steps = found["throughput"]["rows"], found["steps"]["rows"]
    at16 = {row["arch"]: row for row in throughput if row["batch"] == 16}
    step = {row["step"]: row for row in steps}
    resnet, vgg = at16["resnet50"], at16["vgg16"]
    single, _, usual, contributions = (
        row["speedup"] for name, row in step.items() if name.startswith("contributions, VGG-16")
    )
    search = step["search and maps, ResNet-50"]["speedup"]
    bank = step["bank of one class, ResNet-50"]["fast_ms"]
    first = step["first explanation, ResNet-50"]["warm_s"]
    memory = max(row["peak_bytes_explain"] / row["peak_bytes_forward"] for row in throughput)
    return [
        ["FPE, ResNet-50", "≤ 1.10", f"{resnet['fpe']:.2f}", verdict(resnet["fpe"] <= 1.10)],
        ["FPE, ResNet-50, GPU, batch 256, bfloat16", "≤ 1.15", "—", "not measured yet"],
        ["FPE, VGG-16 at 7×7", "≤ 3.0", f"{vgg['fpe']:.2f}", verdict(vgg["fpe"] <= 3.0)],
        [
            "contributions, VGG-16, over the direct path",
            "≥ 5×",
            f"{contributions:.1f}× (batch 32), {usual:.1f}× (batch 16), {single:.1f}× (one image)",
            verdict(usual >= 5),
        ],
        [
            "search, ResNet-50, over the direct path",
            "≥ 8×",
            f"{search:.0f}×",
            verdict(search >= 8),
        ],
        ["bank of one class, ResNet-50", "≤ 10 ms", f"{bank:.1f} ms", verdict(bank <= 10)],
        ["peak memory over the forward pass", "≤ 1.3×", f"{memory:.2f}×", verdict(memory <= 1.3)],
        [
            "process start to first explanation, warm cache",
            "≤ 15 s",
            f"{first:.1f} s",
            verdict(first <= 15),
        ],
    ]


def page(found: dict[str, Any]) -> str:
    """docs/performance.md."""
    throughput, steps = found["throughput"], found["steps"]
    header = ["", "FPE", "forward/s", "explain/s", "rest ms", "edits", "forward MiB", "memory ×"]
    header += ["of matmul peak"]
    rows = throughput_rows(throughput)
    if found["throughput_bfloat16"]:
        rows += throughput_rows(found["throughput_bfloat16"])
    step = {row["step"]: row for row in steps["rows"]}
    step_rows = [
        [
            name,
            f"{row['fast_ms']:.2f}" if "fast_ms" in row else "",
            f"{row['direct_ms']:.1f}" if "direct_ms" in row else "",
            f"{row['speedup']:.1f}×" if "speedup" in row else "",
            f"{row['difference']:.0e}" if "difference" in row else "",
        ]
        for name, row in step.items()
        if "fast_ms" in row
    ]
    lines = [
        "# Performance",
        "",
        "Every figure on this page was written by `python benchmarks/performance.py` from the JSON",
        "in `docs/results`, which the benchmark scripts made.",
        "",
        "## Method",
        "",
        "The unit is the **forward-pass equivalent** (FPE): the time to explain a batch, backbone",
        "pass included and bank prebuilt, over the time of one plain classifier pass on that batch.",
        "Both are measured in turn in one process, after a warm-up; figures are medians. 1.0 is the",
        "floor. Networks have random weights; the heads, labels and candidates are planted so that",
        "every search takes 3 to 8 edits, and a batch has a mix of them. Memory is",
        "the compiled programs' own analysis (arguments, results and temporaries).",
        "",
        f"CPU: {describe(throughput['machine'])}. GPU: not measured yet; the scripts need jax, flax,",
        "optax, numpy and this package only and run there unchanged:",
        "",
        "```",
        "python benchmarks/throughput.py --arch resnet50 --batch 256 --dtype bfloat16 --json gpu.json",
        "python benchmarks/table2.py --json gpu_table2.json",
        "```",
        "",
        "The processor was shared with other work. The step-by-step rows come from a run with that",
        "work paused; the others from runs beside it, at high priority. Repeated runs differ by",
        "several percent, and the contributions' ratio by much more, since fc6 competes for memory.",
        "",
        "## The bars",
        "",
        table(["what (K = 200, U = 20, m = 10, batch 16)", "bar", "measured", ""], bars(found)),
        "",
        "## Throughput",
        "",
        table(header, rows),
        "",
        "![FPE and images per second over the batch size](results/throughput.png)",
        "",
        "*What limits each row.* A ResNet-50's explanation beyond the forward pass is "
        f"{throughput['rows'][1]['rest_ms_per_image']:.1f} ms an image: projecting the image's cells",
        "and comparing them with the candidates, once, then a few small matrix products an edit. For",
        "VGG-16 the dense layers after fc6 are the limit: each edit takes n² = 49 rows (contributions)",
        "and |U|·m = 200 rows (candidates) through fc7 and fc8, about 8.7 GFLOP, where the whole",
        "forward pass is 31 GFLOP. Fc6 itself drops out of the loop. Heads that do not factor (a",
        "VGG cut before its last pool, a ResNet cut a block earlier) pay whole passes of what follows",
        "the cut for every kernel and every candidate: the direct column below.",
        "",
    ]
    bfloat, agreement = found["throughput_bfloat16"], found["agreement"]
    if bfloat and agreement:
        same = bfloat["rows"][0]["same_edits_as_float32"]
        lines += [
            "*bfloat16.* Contributions and search are float32 whatever the backbone computes in."
            f" On the shipped classifier's {agreement['mistakes_of_both']} mistakes,"
            f" {agreement['same_edits']:.0%} get the same edits in the same order with a bfloat16"
            f" backbone, {agreement['same_first_edit']:.0%} the same first edit; their dominant maps"
            f" correlate with {agreement['median_correlation_of_dominant_maps']:.3f} in the median."
            f" On the random network of this page it is {same:.0%}: its images differ by little more"
            " than bfloat16 rounds away. This CPU has no fast bfloat16 convolutions, so only the"
            " agreement is of interest here.",
            "",
        ]
    lines += [
        "## Step by step, against the direct path",
        "",
        table(["step", "ms an image", "direct ms", "faster", "largest difference"], step_rows),
        "",
        "The direct path masks and edits whole feature maps and passes them through the head",
        "(`fgvce_jax.heads.Direct`); both give the same edits. *Bank* rows are for 20 reference"
        " images. Contributions of a single image through VGG's dense head are bound by memory on"
        " both paths: fc6 alone is 392 MiB and has to be read once. A batch reads it once for all,"
        " and the saving approaches that of the arithmetic, 5.9 to 1.0 GMAC an image.",
        "",
        "## Table 2",
        "",
    ]
    if found["table2"]:
        lines += [table2.table(found["table2"]), ""]
    lines += ["## Scaling", "", "![Cost over each size](results/scaling.png)", ""]
    if found["scaling"]:
        for name, sweep in found["scaling"]["sweeps"].items():
            points = ", ".join(
                f"{row['size']}: {row['ms_per_image']:.2f} ms"
                for row in sweep
                if row["ms_per_image"] is not None
            )
            lines.append(f"- **{name}** ({found['scaling']['complexity'][name]}): {points}")
        lines += [
            "",
            "Virtual devices share the two cores, so the device curve shows the overhead of more",
            "programs, not a speed-up.",
            "",
        ]
    if found["input"]:
        lines += ["## Input pipeline", "", *input_lines(found["input"]), ""]
    if whole := load("whole_split"):
        lines += ["## A whole split, killed and resumed", "", *whole_split_lines(whole), ""]
    resnet_all, vgg_all = (
        [row for name, row in step.items() if name.startswith(f"search, {arch}, chunks")]
        for arch in ("ResNet-50", "VGG-16")
    )
    lines += [
        "## What was tried",
        "",
        "- **Searching a batch together on a CPU.** With `chunk` = 16, one loop for the batch, a"
        " finished image pays for the slowest one: "
        f"{vgg_all[1]['fast_ms']:.0f} ms an image against {vgg_all[0]['fast_ms']:.0f} ms one at a"
        f" time for VGG-16, {resnet_all[1]['fast_ms']:.1f} against {resnet_all[0]['fast_ms']:.1f} ms"
        " for ResNet-50. One at a time is the CPU's default; accelerators search the whole batch.",
        "- **Handing the whole bank to the program.** Correct, but for 200 classes it is "
        f"{throughput['rows'][0]['bank_bytes'] / 2**20:.0f} MiB beside the forward pass's "
        f"{throughput['rows'][1]['peak_bytes_forward'] / 2**20:.0f} MiB. A batch now takes only the"
        " groups of its own targets.",
        "- **A separate pass for p(h).** The unmasked map is one more row among the masked ones, and"
        " the edited map's logits are those of the winning candidate: a VGG reads its 64 MiB fc7"
        " twice an edit instead of four times.",
        "- **Carrying only indices through the loop.** For a pooled-linear head the rows could be"
        " gathered from a table by index. They are carried instead (n²·K floats): the dense head has"
        " no such table, since a candidate's row depends on the cell it replaces, and one loop"
        " serves both.",
        "",
    ]
    return "\n".join(lines)


def input_lines(result: dict[str, Any]) -> list[str]:
    """The input pipeline beside the forward pass."""
    header = ["resize", "worker processes", "images/s", "times the ResNet-50 forward pass"]
    rows = [
        [
            row["preprocessing"],
            str(row["worker_processes"] or "threads"),
            f"{row['pipeline_images_per_s']:.0f}",
            f"{row['ratio']:.1f}",
        ]
        for row in result["rows"]
    ]
    drawn = "drawn" if result["drawn"] else "photographed"
    return [
        f"JPEG files of {result['mean_file_kb']:.0f} kB, {drawn}, decoded, resized and batched as"
        " `fgvce explain` does; on the same machine.",
        "",
        table(header, rows),
    ]


def whole_split_lines(result: dict[str, Any]) -> list[str]:
    """Memory over the split's size, and what interruptions change."""
    counts = result["counts"]
    memory = ", ".join(f"{int(n):,} images {mb:.0f} MB" for n, mb in result["peak_mb"].items())
    same = "the tables and maps of an uninterrupted run" if not result["differences"] else "others"
    return [
        "`python tests/whole_split.py --annotations CUB_200_2011"
        f" --kills {result['kills']} --json docs/results/whole_split.json`: the test split of CUB-200-2011 by its real annotation"
        f" files, with drawn images and a small classifier. {counts['misclassified']:,} mistakes of"
        f" {counts['read']:,} images are explained in {result['seconds']:.0f} s. Peak memory:"
        f" {memory}. Killed (SIGKILL) at {result['kills']} random moments and continued, it ends"
        f" with {same}.",
    ]


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--docs_only", action="store_true", help="measure nothing")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name, (script, *arguments) in RUNS.items():
        if not options.docs_only and load(name) is None:
            drawing = ["--figure", str(RESULTS / f"{name}.png")] if name in FIGURES else []
            output = ["--json", str(RESULTS / f"{name}.json"), *drawing]
            print(f"$ python benchmarks/{script} {' '.join(arguments)}", flush=True)
            subprocess.run([sys.executable, HERE / script, *arguments, *output], check=True)
    (DOCS / "performance.md").write_text(page({name: load(name) for name in RUNS}))
    print(DOCS / "performance.md")


if __name__ == "__main__":
    main()
