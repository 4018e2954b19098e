"""Every planted error still has its place in the source; ``run.py`` tells which of them the tests see."""

import ast

from mutants import run


def test_a_hundred_errors_have_one_place_each():
    listed = run.mutants()
    assert len(listed) == len({mutant.effect for mutant in listed}) == 100
    files = {room: run.sources(room) for room in {mutant.room for mutant in listed}}
    for mutant in listed:
        path, text = run.planted(mutant, files[mutant.room])
        assert text != files[mutant.room][path], mutant.effect
        ast.parse(text)
