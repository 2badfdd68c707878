"""Molecules: tokens, codes, unknown outcomes, and plain refusals."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilium.client.records.features import to_grid
from consilium.client.sources.recorded.molecules import Molecules, tokenise
from consilium.shared.errors import DataError
from consilium.shared.study.definition import load_study, with_changes
from consilium.shared.study.input_names import token_numbers
from tests.client.sources.tiny_records import write_molecules

ROOT = Path(__file__).parents[4]
DATA = ROOT.parent / "shared" / "data" / "molecules"
STUDY = load_study(ROOT / "studies" / "bbbp.toml")
ASSAYS = {"label": "NR-AR+SR-p53"}


def test_tokens_are_atoms_bonds_rings_and_branches() -> None:
    assert tokenise("[Cl].CC(C)Br") == ["[Cl]", ".", "C", "C", "(", "C", ")", "Br"]
    assert tokenise("c1ccccc%12C=O[C@@H]") == (
        ["c", "1", "c", "c", "c", "c", "c", "%12", "C", "=", "O", "[C@@H]"]
    )
    assert tokenise("C C") is None
    assert tokenise("") is None


@given(st.text(max_size=30))
def test_tokens_always_give_the_text_back_or_nothing(text: str) -> None:
    tokens = tokenise(text)
    assert tokens is None or "".join(tokens) == text


def test_codes_branches_and_rings_stand_at_their_places(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("smiles,p_np\nC1(C)[Xx]C1,1\n")
    grid = to_grid(Molecules(tmp_path / "m.csv").read_patients(STUDY), STUDY)
    branch, ring, code = grid.value_NTV[0, :8].T.tolist()
    numbers = token_numbers(STUDY)
    assert branch == [0, 0, 1, 1, 0, 0, 0, 0]
    assert ring == [0, 1, 1, 1, 1, 1, 1, 0]
    tokens = ["C", "1", "(", "C", ")", "[Xx]", "C", "1"]
    assert code == [numbers.get(token, 1) for token in tokens]
    assert grid.mask_NT[0].sum() == 8


def test_the_same_molecule_twice_is_one_unit(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("smiles,p_np\nCC,1\nCO,0\nCC,0\n")
    patients = list(Molecules(tmp_path / "m.csv").read_patients(STUDY))
    assert [(p.patient_id, len(p.stays)) for p in patients] == [("CC", 2), ("CO", 1)]


def test_an_empty_cell_is_an_outcome_not_known(tmp_path: Path) -> None:
    study = with_changes(
        STUDY, data=ASSAYS, task={"kind": "multilabel", "outputs": 2, "prevalence": None}
    )
    source = Molecules(write_molecules(tmp_path) / "tox21.csv")
    grid = to_grid(source.read_patients(study), study)
    assert grid.y_N.shape[1] == 2
    assert np.isnan(grid.y_N[:, 0]).sum() == 13
    assert not np.isnan(grid.y_N[:, 1]).any()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("smiles,p_np\nCC\n", "line 2: 1 columns, not 2"),
        ("smiles,p_np\nCC,maybe\n", "line 2: a label is not a number"),
        ("smiles,p_np\nCC,7\n", "line 2: a label is not 0 or 1"),
        ("smiles,p_np\nC?! C,1\n", "line 2: the SMILES has characters that are no token"),
        ("smiles,other\nCC,1\n", "has no column 'p_np'"),
        ("", "has no column 'smiles'"),
        ("smiles,p_np\n" + "C" * 70_000 + ",1\n", "longer than 65536 characters"),
    ],
)
def test_a_malformed_file_is_refused_in_one_sentence(tmp_path, text, sentence) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        list(Molecules(tmp_path / "m.csv").read_patients(STUDY))


@pytest.mark.parametrize("line", ["CC", "CC,maybe", "CC,7", "C?! C,1"])
def test_a_line_that_cannot_be_read_is_set_aside_and_counted(tmp_path, line) -> None:
    (tmp_path / "m.csv").write_text(f"smiles,p_np\nCCO,1\n{line}\nCN,0\n")
    source = Molecules(tmp_path / "m.csv")
    assert len(list(source.read_patients(STUDY))) == 2
    assert source.report.set_aside == {"lines that cannot be read": 1}


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes("smiles,p_np\nCC,1\n".encode("utf-16"))
    with pytest.raises(DataError, match="cannot be read as CSV in UTF-8"):
        list(Molecules(tmp_path / "m.csv").read_patients(STUDY))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the molecules are not beside the repository")
def test_real_molecules_read_whole() -> None:
    grid = to_grid(Molecules(DATA / "BBBP.csv").read_patients(STUDY), STUDY)
    assert len(grid.y_N) == 2050
    assert (grid.value_NTV[..., -1] == 1).mean() < 0.005  # few tokens are outside the vocabulary
