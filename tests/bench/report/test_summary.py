"""The sentences that end a sweep say what its rows say."""

from bench.measure.record import Row
from bench.report.summary import peers, summary


def row(variant, path, precision="fp32", images_s=None, status="ok", change=None):
    return Row(variant, path, precision, "infer", 1, status, images_s=images_s, pckh_change=change)


ROWS = [
    row("small", "eager", images_s=10.0),
    row("original", "eager", images_s=1.0),
    row("small", "openvino", images_s=20.0),
    row("original", "openvino", images_s=3.0),
    row("small", "onnxruntime", images_s=90.0),  # on one network only
    row("small", "openvino", "bf16", images_s=40.0, change=0.01),
    row("original", "openvino", "bf16", images_s=2.0, change=-0.05),
    row("small", "amp", "bf16", status="WRONG"),
    row("original", "compile", status="left out"),
    row("original", "tensorrt", "fp16", status="skipped"),
]


def test_the_fastest_exact_and_the_fastest_rounded_path_of_a_hand_worked_case():
    exact, rounded, left_out = summary(ROWS, "make more")
    assert exact == "Fastest exact path: openvino:fp32, 2.5 × eager (2.0 to 3.0 on 2 networks)."
    assert rounded == (
        "Fastest within its tolerance: openvino:bf16, 3.0 × eager (2.0 to 4.0 on 2 networks; PCKh -0.05 to +0.01)."
    )
    assert left_out == (
        "Left out for their time: 1 of 10 cells, 1 cannot run here, 1 are WRONG; make more measures them."
    )


def test_a_sweep_of_one_path_says_that_there_is_nothing_beside_it():
    exact, rounded, left_out = summary(ROWS[:1], "make more")
    assert "none was measured beside eager" in exact
    assert "none was measured" in rounded
    assert left_out == "Nothing of 1 cells was left out."


def test_a_faster_exact_path_of_another_library_is_said_with_the_networks_that_it_is_faster_on():
    own = [row("small", "fused", images_s=25.0), row("original", "fused", images_s=2.5)]
    assert peers([*ROWS, *own]) == (
        "An exact path of another library is faster here than fused:fp32, of 2 networks: "
        "onnxruntime:fp32 on 1 (up to 3.6 ×), openvino:fp32 on 1 (up to 1.2 ×)."
    )
    quick = [row("small", "fused", images_s=95.0), row("original", "fused", images_s=3.5)]
    assert peers([*ROWS, *quick]).startswith("No exact path of another library is faster here than fused:fp32")
    assert "was timed beside" in peers(ROWS)


def test_a_path_that_reached_more_networks_does_not_hide_a_faster_one():
    plain = [row(f"v{i}", "eager", images_s=1.0) for i in range(3)] + [
        row(f"v{i}", "channels_last", images_s=1.5) for i in range(3)
    ]
    exact = summary([*plain, row("v0", "fused", images_s=3.0), row("v1", "fused", images_s=4.0)], "")[0]
    assert exact == "Fastest exact path: fused:fp32, 3.5 × eager (3.0 to 4.0 on 2 networks)."
