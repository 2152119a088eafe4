"""The oracle itself, on marks that are made up."""

from __future__ import annotations

from marks import Marks, fences_grow, overlaps


def test_it_sees_who_executed_beside_whom_and_whose_fence_is_too_low(tmp_path):
    marks = Marks(tmp_path / "marks")

    def left(name: str, *lines: str) -> None:
        (marks.path / f"{name}.1.1").write_text("".join(f"{line}\n" for line in lines))

    left("first", "1.0 begin 1 0.0", "2.0 work", "3.0 interrupted")
    left("next", "3.5 begin 2 0.0", "4.0 work")
    assert overlaps(marks.executions()) == []
    assert fences_grow(marks.executions())
    assert [e.how for e in marks.executions()] == ["interrupted", "work"]

    left("third", "2.5 begin 2 0.0", "2.75 end")
    assert overlaps(marks.executions()) == [
        "first executed on for 0.50 s beside third, then: interrupted"
    ]
    assert not fences_grow(marks.executions())
