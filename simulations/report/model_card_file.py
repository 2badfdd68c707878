"""``model-card.json``: the model card of the report's page, for programs.

Sections and names are those of CHAI's Applied Model Card, version 0.2 (Coalition for Health AI,
https://mc.chai.org/v0.2/schema.xsd), and the items of TRIPOD+AI as on the page. Results have
95 % intervals over patients; what a run does not know is null. docs/model-card.schema.json
describes the file.
"""

import json
from collections.abc import Mapping
from typing import Any

from consilium.shared.export.limits import limits
from consilium.shared.files.json_record import JsonRecord
from consilium.shared.study.definition import Study
from consilium.shared.study.output_names import output_names
from consilium.simulations.figures.measures import FIGURES, TITLES
from consilium.simulations.report.groups import share_of
from consilium.simulations.report.model_card import Item

FILE_NAME = "model-card.json"
SCHEMA = 1


def model_card_file(study: Study, record: JsonRecord, items: list[Item]) -> bytes:
    """Return the file's bytes; the same record gives the same bytes.

    Args:
        study: what was run.
        record: content of ``run.json``.
        items: as :func:`.model_card.model_card` returned them.
    """
    texts = {item.number: item.text for item in items}
    known = limits(
        study, simulated=True, validated=(record["test"]["patients"], "held-out test patients")
    )
    content = {
        "schema": SCHEMA,
        "study": study.name,
        "study_digest": record["study_digest"],
        "software": f"consilium {record['software']}",
        "limits": list(known),
        "chai_applied_model_card": _chai(study, record, texts, known),
        "tripod_ai": [
            {"item": item.number, "subject": item.name, "text": item.text} for item in items
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def _chai(
    study: Study, record: JsonRecord, texts: Mapping[str, str | None], known: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "BasicInfo": {"ModelName": study.name, "ModelDeveloper": None, "DeveloperContact": None},
        "ReleaseInfo": {
            "ReleaseStage": "simulation: not for use on patients",
            "ReleaseDate": None,
            "ReleaseVersion": record["study_digest"],
            "GlobalAvailability": None,
            "RegulatoryApproval": None,
        },
        "ModelSummary": {"Summary": study.title, "Keywords": list(output_names(study))},
        "UsesAndDirections": {
            "IntendedUseAndWorkflow": study.purpose or None,
            "PrimaryIntendedUsers": None,
            "HowToUse": texts["12g"],
            "TargetedPatientPopulation": texts["6b"],
            "CautionedOutOfScopeSettings": texts["27a"],
        },
        "Warnings": {
            "KnownRisksAndLimitations": " ".join((*known, texts["26"] or "")),
            "KnownBiasesOrEthicalConsiderations": texts.get("23b"),
            "ClinicalRiskLevel": None,
        },
        "TrustIngredients": {
            "AISystemFacts": {
                "OutcomesAndOutputs": f"{texts['8a']} {texts['15']}",
                "ModelType": texts["12c"],
                "InputDataSource": texts["5a"],
                "OutputAndInputDataTypes": texts["9b"],
                "DevelopmentDataCharacterization": texts["21"],
                "BiasMitigationApproaches": texts["14"],
                "OngoingMaintenance": texts["12f"],
            },
            "TransparencyInformation": {
                "FundingSource": texts["18a"],
                "StakeholdersConsulted": texts["19"],
            },
        },
        "KeyMetrics": {
            "UsefulnessUsabilityEfficacy": {
                "MetricGoal": None,
                "Results": [_result(name, record) for name in FIGURES[study.task.kind]],
                "Interpretation": texts["25"],
                "TestType": texts["4"],
                "TestingDataDescription": record["test_cohort"],
                "ValidationProcessAndJustification": texts["12e"],
            },
            "FairnessEquity": None,
            "SafetyReliability": None,
        },
        "Resources": {
            "EvaluationReferences": None,
            "ClinicalTrial": None,
            "PeerReviewedPublications": None,
            "PatientConsentOrDisclosure": texts["17"],
        },
        "Bibliography": None,
    }


def _result(name: str, record: JsonRecord) -> dict[str, Any]:
    share = share_of(record["test"].get(name))
    return {
        "Label": TITLES[name],
        "Value": None if share is None else share.value,
        "Low": None if share is None else share.low,
        "High": None if share is None else share.high,
    }
