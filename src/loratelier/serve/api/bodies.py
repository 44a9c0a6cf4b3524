"""What may be asked: the bodies of requests, as the OpenAI API has them, and what we add.

An unknown key is refused with the nearest known one: an option that is not carried out is not
accepted in silence.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from loratelier.kit.models import Strict
from loratelier.scope.strength import HIGHEST, LOWEST

Name = Annotated[str, Field(min_length=1, max_length=200)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# Further in than any schema or call of a tool goes; json and Jinja walk it by recursion.
_DEEPEST = 64


class Body(Strict):
    """A whole body: every text in it is one that can be written down."""

    @model_validator(mode="before")
    @classmethod
    def _whole_texts(cls, values: Any) -> Any:
        # JSON can say half a surrogate pair, which no tokenizer takes. Walked without recursion:
        # a body may be nested deeper than Python calls.
        left = [values]
        while left:
            value = left.pop()
            if isinstance(value, str):
                _require_whole(value)
            elif isinstance(value, list):
                left.extend(value)
            elif isinstance(value, dict):
                left.extend([*value.keys(), *value.values()])
        return values


class Part(Strict):
    """A part of a message; only text is read."""

    type: Literal["text"]
    text: str


class Function(Strict):
    """A call's name and arguments (JSON as text)."""

    name: str
    arguments: str


class ToolCall(Strict):
    """A call of a tool that an earlier answer asked for."""

    id: str
    type: Literal["function"] = "function"
    function: Function


class ChatMessage(Strict):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=128)] | None = None
    tool_call_id: Name | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "ChatMessage":
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError(f"a message of the role '{self.role}' has no content")
        return self

    def plain(self) -> dict[str, Any]:
        """Return the message for a chat template: its parts as one text."""
        plain = self.model_dump(exclude_none=True)
        if isinstance(self.content, list):
            plain["content"] = "\n".join(part.text for part in self.content)
        if self.role == "developer":
            plain["role"] = "system"  # the newer name of the same thing
        return plain


class ToolFunction(Strict):
    """A function as a template shows it."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @field_validator("parameters")
    @classmethod
    def _shallow(cls, value: Any) -> Any:
        return _require_shallow(value)


class Tool(Strict):
    """A tool that the model may ask for."""

    type: Literal["function"]
    function: ToolFunction


class SchemaFormat(Strict):
    """The form of an answer; ``schema`` is a JSON schema."""

    name: Name
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None

    @field_validator("schema_")
    @classmethod
    def _shallow(cls, value: Any) -> Any:
        return _require_shallow(value)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        # `schema` is a method of pydantic's, so the field has another name than the key.
        return values


class ResponseFormat(Strict):
    """Text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None

    @model_validator(mode="after")
    def _together(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("'json_schema' belongs to the type 'json_schema', and to it alone")
        return self


class StreamOptions(Strict):
    """``include_usage``: a last piece with the counts."""

    include_usage: bool = False


class Worn(Strict):
    """One adapter of a mixture."""

    name: Name
    scale: Annotated[float, Field(ge=LOWEST, le=HIGHEST, allow_inf_nan=False)] = 1.0


class Route(Strict):
    """How this request is routed.

    Attributes:
        policy: which of the server's policies, by name; ``signals`` knows the signals alone.
        allow: only these may be worn (of those that the key may use).
        deny: these may not.
        top_k: of a mixture the strongest so many.
        threshold: below this confidence the base answers.
        explain: the answer has the whole decision under ``route``.
    """

    policy: Name | None = None
    allow: Annotated[list[Name], Field(max_length=256)] | None = None
    deny: Annotated[list[Name], Field(max_length=256)] = Field(default_factory=list)
    top_k: Annotated[int, Field(ge=1, le=64)] | None = None
    threshold: Share | None = None
    explain: bool = False


class Rag(Strict):
    """Which library is looked into, and how many pieces stand before the question."""

    collection: Name
    k: Annotated[int, Field(ge=1, le=32)] = 4


class Generation(Body):
    """What chat and text completions have in common.

    ``user`` and ``metadata`` are accepted because clients send them; they ask for nothing.
    """

    model: Name
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=8)] = 1
    temperature: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    min_p: Share | None = None
    repetition_penalty: Annotated[float, Field(ge=0.5, le=3, allow_inf_nan=False)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] = 0.0
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]] | None = (
        None
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    ignore_eos: bool = False
    response_format: ResponseFormat | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    metadata: dict[str, str] | None = None
    lora: Annotated[list[Worn], Field(max_length=64)] | None = None
    route: Route | None = None

    @field_validator("logit_bias")
    @classmethod
    def _bounded(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is not None:
            if len(value) > 1024:
                raise ValueError("at most 1024 tokens may have a bias")
            for key in value:
                if not (key.isascii() and key.isdigit() and len(key) < 10):
                    raise ValueError("its keys are token numbers")
        return value

    @field_validator("stop")
    @classmethod
    def _some_text(cls, value: str | list[str] | None) -> str | list[str] | None:
        stops = [value] if isinstance(value, str) else value or []
        if any(not each or len(each) > 500 for each in stops):
            raise ValueError("a stop has 1 to 500 characters")
        return value

    @field_validator("lora")
    @classmethod
    def _each_once(cls, value: list[Worn] | None) -> list[Worn] | None:
        if value is not None and len({each.name for each in value}) < len(value):
            raise ValueError("an adapter is named twice")
        return value

    @model_validator(mode="after")
    def _stream_options_of_streams(self) -> "Generation":
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' belongs to 'stream': true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """What ends the answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatBody(Generation):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    rag: Rag | None = None

    @model_validator(mode="after")
    def _coherent(self) -> "ChatBody":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("'top_logprobs' needs 'logprobs': true")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("give 'max_completion_tokens' or 'max_tokens'")
        if self.tool_choice is not None and not self.tools:
            raise ValueError("'tool_choice' needs 'tools'")
        return self

    @property
    def limit(self) -> int | None:
        """The most tokens of the answer, where one is given."""
        return self.max_tokens or self.max_completion_tokens

    @property
    def alternatives(self) -> int | None:
        """How many likely tokens are told beside each; None: no log probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(Generation):
    """``POST /v1/completions``: one text, several, or token numbers."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=16)]
        | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    )
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool = False

    @model_validator(mode="after")
    def _coherent(self) -> "CompletionBody":
        if self.echo and self.logprobs is not None:
            raise ValueError("log probabilities of the prompt are not given: leave out 'echo'")
        return self

    @property
    def limit(self) -> int | None:
        """The most tokens of the answer, where one is given."""
        return self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """How many likely tokens are told beside each; None: no log probabilities at all."""
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt: a text, or token numbers."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        texts = [each for each in self.prompt if isinstance(each, str)]
        return list(texts) if texts else [[each for each in self.prompt if isinstance(each, int)]]


class EmbeddingBody(Body):
    """``POST /v1/embeddings``; the base's, whatever adapters there are."""

    model: Name
    input: str | Annotated[list[str], Field(min_length=1, max_length=64)]
    encoding_format: Literal["float", "base64"] = "float"
    user: Annotated[str, Field(max_length=512)] | None = None

    @property
    def texts(self) -> list[str]:
        """Each text."""
        return [self.input] if isinstance(self.input, str) else self.input


class LoadBody(Body):
    """``POST /v1/load_lora_adapter``, as vLLM has it.

    ``lora_path`` is a name in the store, never a path; without it the adapter's own name.
    ``load_inplace`` replaces an adapter that is loaded under the name already.
    """

    lora_name: Name
    lora_path: Name | None = None
    load_inplace: bool = False


class UnloadBody(Body):
    """``POST /v1/unload_lora_adapter``, as vLLM has it."""

    lora_name: Name


def _require_whole(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half a character (a lone surrogate)") from error


def _require_shallow(value: Any, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"it is nested deeper than {_DEEPEST}")
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inside:
        _require_shallow(each, depth + 1)
    return value
