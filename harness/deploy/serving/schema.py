"""The OpenAPI description of a service."""

from __future__ import annotations

from typing import Any

from harness.data.user_files.location import MEDIA
from harness.deploy.serving.bodies import FILE_TYPES
from harness.deploy.serving.limits import Limits
from harness.deploy.serving.service import Description

Schema = dict[str, Any]


def _json(schema: Schema, description: str) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


_STATUS = _object(status={"type": "string"})
_ERROR: Schema = {
    "type": "object",
    "properties": {
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": _object(index={"type": ["integer", "null"]}, message={"type": "string"}),
        },
    },
    "required": ["detail"],
}
_DENIED = {
    "401": _json(_ERROR, "The token is missing or wrong."),
    "403": _json(_ERROR, "The request comes from another website, or its Host header is not allowed."),
}


def openapi(description: Description, limits: Limits) -> Schema:
    """Return the OpenAPI description of the service."""
    open_responses = {"403": _DENIED["403"]}
    text = {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    not_ready = _json(_STATUS, "The model is not loaded, or the server is stopping.")
    paths = {
        "/predict": {
            "post": {
                "summary": "Predict examples",
                "description": "Return a prediction for each example, in the same order.",
                "operationId": "predict",
                "requestBody": _predict_request(description, limits),
                "responses": _predict_responses(description),
            }
        },
        "/health": _get(
            "health",
            "Check that the server is running",
            "Return status 200 while the HTTP server is running.",
            {"200": _json(_STATUS, "The server is running."), **open_responses},
        ),
        "/ready": _get(
            "ready",
            "Check that the model is loaded",
            "Return status 200 if predictions can be requested, and 503 otherwise.",
            {"200": _json(_STATUS, "Predictions can be requested."), **open_responses, "503": not_ready},
        ),
        "/model": _get(
            "model",
            "Describe the model",
            "Return the run, the kind of input, the names of the outputs and the limits.",
            {"200": _json({"type": "object"}, "Description of the model."), **_DENIED},
        ),
        "/metrics": _get(
            "metrics",
            "Metrics for Prometheus",
            "Return the metrics in the Prometheus text format.",
            {"200": text, **_DENIED},
        ),
    }
    info = {
        "title": f"{description.task}: {description.model}",
        "description": f"Predictions of the model trained by run {description.run}.",
        "version": "1",
    }
    return {"openapi": "3.1.0", "info": info, "paths": paths}


def _get(name: str, summary: str, description: str, responses: Schema) -> Schema:
    operation = {"summary": summary, "description": description, "operationId": name, "responses": responses}
    return {"get": operation}


def _predict_request(description: Description, limits: Limits) -> Schema:
    """Return the description of the body of a prediction request."""
    binary = {"type": "string", "format": "binary", "minLength": 1}
    instances = {
        "type": "array",
        "items": _instance(description),
        "minItems": 1,
        "maxItems": limits.request_examples,
    }
    body = {**_object(instances=instances), "additionalProperties": False}
    files = {"type": "array", "items": binary, "minItems": 1}
    content: dict[str, Schema] = {
        "application/json": {"schema": body},
        "multipart/form-data": {"schema": _object(files=files)},
    }
    content |= {name: {"schema": binary} for name in FILE_TYPES[description.kind]}
    return {"required": True, "content": content}


def _instance(description: Description) -> Schema:
    if description.kind == "text":
        return {"type": "string", "pattern": r"\w", "description": "A text."}
    if description.kind in MEDIA:
        return {"type": "string", "format": "byte", "description": "The content of a file, encoded as Base64."}
    kinds: dict[str, Schema] = {
        "number": {"type": ["number", "null"]},
        "category": {"type": ["string", "number", "boolean", "null"]},
        "date": {"type": ["string", "null"], "format": "date"},
    }
    columns = {column.name: kinds[column.kind] for column in description.columns}
    return {**_object(**columns), "description": "The columns of a row. Other keys are ignored."}


def _predict_responses(description: Description) -> Schema:
    """Return the descriptions of the answers to a prediction request."""
    numbers = {"type": "object", "additionalProperties": {"type": "number"}}
    prediction = (
        _object(values=numbers)
        if description.objective == "regression"
        else _object(label={"type": "string"}, probabilities=numbers)
    )
    answer = _object(predictions={"type": "array", "items": prediction})
    answer["properties"]["warnings"] = {"type": "array", "items": {"type": "string"}}
    problems = {
        "400": "The body is not valid JSON, is not encoded as UTF-8, or is not a valid form.",
        "408": "The body did not arrive in time.",
        "413": "The body is too large, or contains too many examples.",
        "415": "The content type is not supported.",
        "422": "An example is not valid. `errors` lists the invalid examples by index.",
        "500": "The examples could not be prepared, or the predictions could not be computed.",
        "503": "Too many examples are waiting, or the model process ended; see the header Retry-After.",
        "504": "There was no answer within the time limit.",
    }
    return {
        "200": _json(answer, "One prediction for each example, in the same order."),
        **_DENIED,
        **{status: _json(_ERROR, text) for status, text in problems.items()},
    }
