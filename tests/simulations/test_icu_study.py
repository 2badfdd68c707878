"""The intensive-care study on the real records, where they lie beside the repository."""

from pathlib import Path

import pytest

from consilium.shared.study.definition import load_study
from consilium.simulations.runs.compare import compare_settings
from tests.fixed_draws import fix_draws

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "physionet2012"


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not DATA.exists(), reason="the challenge's files are not beside the repository")
def test_federation_keeps_up_with_pooled_training_and_privacy_costs_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fix_draws(monkeypatch)
    compared = compare_settings(
        load_study(ROOT / "studies" / "icu-mortality-2012.toml"),
        DATA,
        tmp_path,
        epsilons=[8.0],
        workers=2,
        watch=lambda *_: lambda _: None,
    )
    auroc = {name: record["test"]["auroc"]["value"] for name, record in compared.items()}
    assert auroc["logistic-regression"] >= 0.85  # a strong rival, shown beside
    assert auroc["federated"] >= 0.84
    assert auroc["federated"] >= 0.98 * auroc["pooled"]
    assert auroc["federated"] > auroc["local"]
    assert auroc["federated-private"] >= 0.82
    assert compared["federated-private"]["privacy"]["epsilon"] <= 8
