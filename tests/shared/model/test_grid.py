"""Convolutions over a grid are those of torch, on the cells that their names say."""

import pytest
import torch
from torch.nn import functional

from consilium.shared.model.study_model import study_model
from consilium.shared.study.definition import Study
from consilium.shared.study.grid import cell_of
from tests.study_text import small_study


def study_of_cells(high: int, wide: int, names: list[str] | None = None, **keys: object) -> Study:
    """A study of a grid of cells and the patient's age."""
    cell = {"unit": "1", "low": 0.0, "high": 1.0, "center": 0.5, "spread": 0.2}
    named = names or [f"pixel-{row}-{column}" for row in range(high) for column in range(wide)]
    age = {"unit": "a", "low": 0, "high": 120, "center": 60, "spread": 15, "role": "static"}
    branch = {"kind": "convolution", "rows": high, "channels": 3, "inputs": [*named, "age"]} | keys
    return small_study(
        variables=dict.fromkeys(named, cell) | {"age": age},
        model={"branches": [branch]},
        data={"clock": "position", "window_h": 5},
    )


@pytest.mark.parametrize(
    ("high", "wide", "kernel", "layers"),
    [(5, 4, 3, 2), (1, 7, 2, 3), (6, 6, 5, 1), (3, 3, 1, 2)],
)
def test_a_layer_over_a_grid_is_a_convolution_of_the_image_and_its_largest_values(
    high, wide, kernel, layers
):
    study = study_of_cells(high, wide, kernel=kernel, layers=layers)
    (network,) = study_model(study).networks
    generator = torch.Generator().manual_seed(1)
    x_NTF = torch.randn(3, 5, network.features, generator=generator)
    mask_NT = torch.arange(5)[None] < torch.tensor([5, 2, 4])[:, None]
    values, measured = (x_NTF[..., place * high * wide :][..., : high * wide] for place in (0, 1))
    image = torch.stack([values, measured], dim=2).view(15, 2, high, wide)
    for layer in network.layers:
        weight = layer.weight.view(3, kernel, kernel, -1).permute(0, 3, 1, 2)
        before, after = (kernel - 1) // 2, kernel // 2
        image = functional.pad(image, (before, after, before, after))
        image = torch.relu(functional.conv2d(image, weight, layer.bias))
        image = functional.max_pool2d(image, 2, ceil_mode=True)
    expected = torch.cat([image.permute(0, 2, 3, 1).reshape(3, 5, -1), x_NTF[..., -2:]], dim=2)
    expected = torch.where(mask_NT[..., None], expected, 0.0)
    torch.testing.assert_close(network.filtered(x_NTF, mask_NT), expected)


@pytest.mark.parametrize(
    ("high", "wide", "keys", "sentence"),
    [
        (2, 2, {"rows": 3}, "has rows = 3 and reads 4 variables of role"),
        (2, 2, {"inputs": ["age"]}, "has rows = 2 and reads 0 variables of role"),
        (2, 3, {"kernel": 4}, "has kernel = 4 on a grid of 2 x 3; lower it to 3 or less"),
        (2, 2, {"pooling": "attention"}, 'pooling "attention" weighs the states of a recurrent'),
        (2, 2, {"hidden": 8}, 'hidden = 8 is of a recurrent cell, and cell is "none"'),
    ],
)
def test_a_grid_that_cannot_be_is_one_sentence(high, wide, keys, sentence):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        study_of_cells(high, wide, **{"kernel": 1} | keys)


def test_cells_that_say_where_they_are_must_stand_there():
    right = [f"cell-{row}-{column}-of-2" for row in range(2) for column in range(2)]
    study_of_cells(2, 2, right, kernel=2)
    for wrong in ([right[0], right[2], right[1], right[3]], right[:2]):
        with pytest.raises(ValueError, match="list a whole grid's cells row by row"):
            study_of_cells(2, 2, wrong, kernel=1)


def test_a_grid_of_too_many_cells_is_refused():
    with pytest.raises(ValueError, match="60 steps of 1104 cells, together above 65536"):
        small_study(
            variables={f"v{n}": {"unit": "1", "low": 0, "high": 1, "center": 0, "spread": 1}
                       for n in range(1103)},
            model={"branches": [{"kind": "convolution", "rows": 48}]},
            data={"clock": "position", "window_h": 60},
        )  # fmt: skip


def test_only_a_whole_name_within_its_grid_is_a_cells():
    assert cell_of("cell-0-3-of-4") == (0, 3, 4)
    for name in ("cell-4-0-of-4", "cell-0-0-of-4x", "pixel-0-0", "cell-0-0-of-0"):
        assert cell_of(name) is None
