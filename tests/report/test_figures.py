from fgvce_jax.report.figures import edits_chart, probability_chart


def test_charts_take_the_colour_of_the_page():
    for chart in (
        edits_chart([1, 1, 3], [True, True, False]),
        probability_chart([0.1, 0.2], [0.8, 0.9]),
        edits_chart([], []),
        probability_chart([], []),
    ):
        assert chart.startswith("<svg")
        assert chart.rstrip().endswith("</svg>")
        assert "currentColor" in chart
        assert "#010203" not in chart
        assert ">images</text>" in chart
