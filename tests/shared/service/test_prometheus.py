"""The text format, to the letter."""

from consilium.shared.service.prometheus import Metric, Sample, gauge, to_text


def test_metrics_are_written_as_collectors_read_them():
    metrics = [
        gauge("up", "Whether it runs.", 1),
        Metric(
            name="messages_total",
            help="Messages, by action.\nTwo lines.",
            kind="counter",
            samples=(
                Sample(value=2, labels={"action": "update", "code": 'a"b\\c\n'}),
                Sample(value=0.125, labels={"action": "keys"}),
            ),
        ),
        gauge("nothing", "Left out.", None),
        gauge("odd", "Odd values.", float("inf"), site="a"),
        gauge("odder", "Odd values.", float("nan")),
        gauge("negative", "Odd values.", float("-inf")),
    ]
    assert to_text(metrics) == (
        "# HELP up Whether it runs.\n# TYPE up gauge\nup 1\n"
        "# HELP messages_total Messages, by action.\\nTwo lines.\n"
        "# TYPE messages_total counter\n"
        'messages_total{action="update",code="a\\"b\\\\c\\n"} 2\n'
        'messages_total{action="keys"} 0.125\n'
        '# HELP odd Odd values.\n# TYPE odd gauge\nodd{site="a"} +Inf\n'
        "# HELP odder Odd values.\n# TYPE odder gauge\nodder NaN\n"
        "# HELP negative Odd values.\n# TYPE negative gauge\nnegative -Inf\n"
    )
