from __future__ import annotations

from fovea.errors import MissingExtra, UsageError, UserError, unknown


def test_exit_statuses_tell_usage_from_the_rest():
    assert UserError.exit_status == 1
    assert UsageError.exit_status == 2
    assert issubclass(UsageError, UserError)
    assert issubclass(UserError, ValueError)


def test_unknown_names_the_nearest_and_what_there_is():
    message = str(unknown("preset", "dmeo", ["demo", "paper-x2"]))
    assert message == "unknown preset 'dmeo'; did you mean demo? There are: demo, paper-x2"


def test_unknown_does_not_list_many():
    message = str(unknown("key", "zzz", [f"name{index}" for index in range(20)], hint="fovea show lists them"))
    assert message == "unknown key 'zzz'; fovea show lists them"


def test_unknown_says_when_there_is_nothing():
    assert str(unknown("preset", "demo", [])) == "unknown preset 'demo'; there are none"


def test_missing_extra_says_how_to_install():
    error = MissingExtra("drawing a pattern", "matplotlib", "draw")
    assert str(error) == "drawing a pattern needs matplotlib, which is not installed: pip install 'fovea[draw]'"
    assert "pip install natten" in str(MissingExtra("this", "natten"))


def test_the_end_of_a_dotted_name_finds_it():
    names = ["stage", "optimisation.steps", "seed"]
    assert str(unknown("key", "steps", names)).startswith("unknown key 'steps'; did you mean optimisation.steps?")
