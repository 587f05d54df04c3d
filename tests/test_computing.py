import pytest

from trainers.computing import unsupported

WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 9), (9, 0), (10, 0), (12, 1)])
def test_code_runs_on_its_own_chip_and_on_later_ones_of_its_major_version(capability):
    assert unsupported(capability, WHEEL) is None


def test_a_chip_older_than_all_that_was_built_for_is_named_with_what_was():
    said = unsupported((6, 0), WHEEL)
    assert "6.0" in said
    assert all(arch in said for arch in WHEEL)


@pytest.mark.parametrize("capability", [(7, 0), (11, 0)])
def test_code_of_another_major_version_does_not_run(capability):
    assert unsupported(capability, WHEEL) is not None


def test_code_that_the_driver_compiles_runs_on_later_chips_only():
    assert unsupported((13, 0), [*WHEEL, "compute_120"]) is None
    assert unsupported((6, 1), [*WHEEL, "compute_120"]) is not None


def test_code_for_one_chip_alone_runs_on_no_other():
    assert unsupported((9, 0), ["sm_90a"]) is None
    assert unsupported((9, 1), ["sm_90a"]) is not None
    assert unsupported((10, 3), ["sm_100f"]) is None
    assert unsupported((9, 0), ["compute_80a"]) is not None


def test_a_torch_without_gpu_code_runs_on_none():
    assert "no GPU" in unsupported((9, 0), [])
