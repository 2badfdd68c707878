"""Lints and renders the chart by Helm's own code, and checks it by the schemas of Kubernetes.

Run by the Python of ``.venv/deploy``, which has the libraries::

    python render_chart.py CHART KUBERNETES_VERSION... <VALUES

VALUES is a JSON list. For each item an object is printed: ``lint`` (errors) and ``documents``, or
``refused`` (why Helm does not take the values).
"""

import json
import sys

import helm_python as helm
import kubernetes_validate
import yaml


def rendered(chart, values, versions):
    found = helm.lint(chart, values, strict=True)
    try:
        with helm.Chart.load(chart) as loaded:
            files = loaded.render(values, name="ward", namespace="hospital")
    except helm.HelmError as error:
        return {"refused": str(error)}
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
    chart, *versions = sys.argv[1:]
    told = [rendered(chart, values, versions) for values in json.load(sys.stdin)]
    sys.stdout.write(json.dumps(told))


main()
