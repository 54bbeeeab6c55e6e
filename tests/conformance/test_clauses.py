"""The contract and the kit name the same clauses."""

from seeknal.state.testing import StateBackendConformance, contract_clauses, kit_clauses


def test_every_clause_has_a_case_and_every_case_a_clause():
    tested = set(kit_clauses(StateBackendConformance))
    assert contract_clauses() - tested == set(), "clauses without a case"
    assert tested - contract_clauses() == set(), "cases of clauses that do not exist"


def test_no_case_hides_another():
    names = [name for group in StateBackendConformance.__bases__ for name in vars(group) if name.startswith("test_")]
    assert sorted(names) == sorted(set(names))
    assert set(names) == {name for name in dir(StateBackendConformance) if name.startswith("test_")}
