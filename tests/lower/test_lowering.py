import numpy as np
import pytest

from tests.lower import graphs
from toolchain.errors import InputError
from toolchain.lower import lower
from toolchain.lower.names import check_model_name, comment, identifier


def test_a_view_is_the_memory_of_its_source():
    program = lower(graphs.chain(), graphs.OPTIONS)
    assert len(program.steps) == 1
    assert program.outputs[0].buffer == program.steps[0].writes[0]
    assert program.steps[0].tensors == ("p",)


def test_ports_carry_the_frameworks_name_and_layout():
    program = lower(graphs.chain(), graphs.OPTIONS)
    assert program.inputs[0].name == "serving_default:0"
    assert program.inputs[0].permutation == (0, 2, 3, 1)


def test_every_output_has_memory_of_its_own():
    program = lower(graphs.outputs_that_alias(), graphs.OPTIONS)
    places = [port.buffer for port in program.outputs]
    assert len({*places, program.inputs[0].buffer}) == 5
    assert all(place in program.buffers for place in places)
    assert len(program.kernels) == 1


def test_equal_constants_are_stored_once():
    program = lower(graphs.outputs_that_alias(), graphs.OPTIONS)
    assert len(program.constants) == 1
    np.testing.assert_array_equal(next(iter(program.constants.values())), np.arange(4, dtype=np.float32))


@pytest.mark.parametrize("name", ["", "3net", "a-b", "a b", "é", "int", "class", "string", "math", "_net", "x" * 60])
def test_names_that_c_does_not_take(name):
    with pytest.raises(InputError, match="--name"):
        check_model_name(name)
    assert check_model_name(identifier(name))


@pytest.mark.parametrize("text", ["a */ b", "a\\", "/* a", "a\nb", "??/", "*" * 3 + "/" * 3, "*??/\r", "\u202e"])
def test_comments_cannot_end_early(text):
    line = comment(text)
    assert line.isascii()
    assert not any(bad in line for bad in ("*/", "/*", "\\", "\n", "\r", "??"))
