"""Progress where nobody watches: a log gets lines with the time left."""

from loratelier.cli import reporting
from loratelier.kit.progress import remark, report_to, task


def test_a_log_gets_lines_with_the_time_left(capsys, monkeypatch):
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(reporting, "monotonic", lambda: float(next(clock)))
    with report_to(reporting.reporter()), task("Training", total=4) as bar:
        for step in range(4):
            bar.say(f"loss {step}")
            bar.advance()
        remark("done")
    lines = capsys.readouterr().err.splitlines()
    # Six seconds a step, a line at most every ten: after the second step and after the fourth.
    assert lines == [
        "Training: 2/4, 0:12 left, loss 1",
        "Training: 4/4, 0:00 left, loss 3",
        "done",
    ]


def test_a_task_without_an_end_says_how_far_it_is(capsys, monkeypatch):
    clock = iter([0.0, 11.0])
    monkeypatch.setattr(reporting, "monotonic", lambda: next(clock))
    with report_to(reporting.reporter()), task("Reading") as bar:
        bar.advance()
    assert capsys.readouterr().err == "Reading: 1\n"
