"""Lints and renders the chart by Helm's own code, and checks it by the schemas of Kubernetes.

Run by the Python of ``.venv/deploy``, which has the libraries::

    python render_chart.py CHART VALUES KUBERNETES_VERSION...

VALUES is JSON. Prints a JSON object: ``lint`` (errors), and ``documents``, or ``refused`` (why the
values are).
"""

import json
import sys

import helm_python as helm
import kubernetes_validate
import yaml


def rendered(chart, values, versions):
    found = helm.lint(chart, values, strict=True)
    with helm.Chart.load(chart) as loaded:
        files = loaded.render(values, name="ward", namespace="hospital")
    documents = [
        document
        for name, text in files.items()
        if name.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]
    for document in documents:
        for version in versions:
            kubernetes_validate.validate(document, version, strict=True)
    return {"lint": found["errors"], "documents": documents}


def main():
    chart, values, *versions = sys.argv[1:]
    try:
        told = rendered(chart, json.loads(values), versions)
    except helm.HelmError as error:
        told = {"refused": str(error)}
    sys.stdout.write(json.dumps(told))


main()
