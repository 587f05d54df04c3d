"""Faults that are merged."""

from trainers.support.errors import FEW, Fault, folded


def test_one_cause_in_many_files_is_one_fault_and_others_stay():
    links = [("out", Fault(f"a/{n}.jpg", f"the path 'a/{n}.jpg' is refused", "copy it")) for n in range(FEW + 1)]
    other = ("size", Fault("labels.csv:3", "too small"))
    merged = Fault("a/0.jpg", f"the path 'a/0.jpg' is refused, like {FEW} others", "copy it")
    assert list(folded([*links, other])) == [merged, other[1]]


def test_a_cause_in_few_files_is_a_fault_each():
    links = [("out", Fault(f"a/{n}.jpg", f"{n} is refused", "copy it")) for n in range(FEW)]
    assert list(folded(links)) == [fault for _, fault in links]
