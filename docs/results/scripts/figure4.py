"""Figure 4 of the few-shot document re-made: mean IoU over training, full supervision solid, k shots dotted.

python docs/results/scripts/figure4.py OUT.png RUN [RUN ...]
"""

import re
import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fewmask.core.run import Run
from fewmask.recipes.page import trainings
from fewmask.report.curves import read_watched

COLOURS = [f"C{number}" for number in range(10)]


def main() -> None:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    curves: dict[tuple[str, int | None], tuple[tuple[float, ...], tuple[float, ...]]] = {}
    for folder in sys.argv[2:]:
        for name, step in trainings(Run(Path(folder))):
            arm, _, rest = name.partition("/")
            found = re.fullmatch(r"all|k=(\d+)/draw=0", rest)
            if found is None:
                continue
            shots = None if rest == "all" else int(found[1])
            watched = read_watched(name, arm, shots, step.stats_jsonl)
            if watched is not None:
                curves.setdefault((arm, shots), (watched.done, watched.iou))
    arms = list(dict.fromkeys(arm for arm, _ in curves))
    counts = sorted({shots for _, shots in curves if shots is not None})
    for axes, k in zip(figure.subplots(1, len(counts), sharey=True, squeeze=False)[0], counts, strict=True):
        for (arm, shots), (done, iou) in curves.items():
            if shots in (k, None):
                look = {"ls": "-", "lw": 1.8, "color": "black"}
                if shots == k:
                    look = {"ls": ":", "lw": 2.0, "color": COLOURS[arms.index(arm) % len(COLOURS)]}
                label = f"{arm}, all masks" if shots is None else arm
                axes.plot([100 * x for x in done], iou, label=label, **look)
        axes.set_title(f"k = {k}")
        axes.set_ylim(0, 0.95)
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel("mean IoU of the test films")
    figure.supxlabel("share of the training's images, %")
    handles = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(sys.argv[1], dpi=110)


if __name__ == "__main__":
    main()
