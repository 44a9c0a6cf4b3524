"""What goes wrong, in the form that clients of the OpenAI API know."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from loratelier.kit.errors import InputError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
# Longer than any message of ours: what a caller sent is not sent back whole.
_LONGEST = 600


class ApiError(Exception):
    """An answer that is an error: its status, a sentence, a code that programs may read."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        super().__init__(message)

    def document(self) -> dict[str, Any]:
        """Return the error object."""
        kind = _TYPES.get(self.status)
        if kind is None:
            kind = "server_error" if self.status >= 500 else "invalid_request_error"
        message = self.message if len(self.message) <= _LONGEST else self.message[:_LONGEST] + "…"
        inside = {"message": message, "type": kind, "param": self.param, "code": self.code}
        return {"error": inside}

    def response(self) -> Response:
        """Return the whole answer."""
        return json_response(self.document(), self.status, self.headers)


def json_response(
    document: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a document as JSON.

    In ASCII: half a surrogate pair that a caller sent can be said back without harm.
    """
    body = json.dumps(document, allow_nan=False, separators=(",", ":")).encode("ascii")
    return Response(body, status, dict(headers or {}), media_type="application/json")


def bad_request(message: str, param: str | None = None) -> ApiError:
    """Return what a request that cannot be carried out is answered with."""
    return ApiError(400, message, code="invalid_value", param=param)


def unknown_model(name: str, mend: str | None = None) -> ApiError:
    """Return what a name that is not there is answered with, or that is not for this caller.

    One answer for both: whoever may not use an adapter does not learn that it exists.
    """
    said = f"The model {name[:80]!a} does not exist"
    return ApiError(404, f"{said}. {mend}" if mend else said, code="model_not_found", param="model")


def install(app: FastAPI) -> None:
    """Answer every error of an app as an error object."""
    app.add_exception_handler(ApiError, _ours)
    app.add_exception_handler(InputError, _input)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _fault)


async def _ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _input(_: Request, error: Exception) -> Response:
    return bad_request(str(error)).response()


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    if first["type"] == "json_invalid":
        return bad_request("The body is no JSON").response()
    said = str(first["msg"]).removeprefix("Value error, ")
    return bad_request(f"{place}: {said}" if place else said, place or None).response()


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = ApiError(error.status_code, str(error.detail), headers=error.headers)
    return said.response()


async def _fault(_: Request, error: Exception) -> Response:
    # What went wrong inside stays inside: the log has it, the caller does not.
    return ApiError(500, f"This is a fault of ours ({type(error).__name__})").response()
