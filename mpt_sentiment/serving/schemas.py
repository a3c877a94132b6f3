"""Schemas of requests and answers."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from mpt_sentiment.serving.errors import RequestError

# A PNG of 8 by 8 orange pixels.
EXAMPLE_IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mP438OAFTEMLQkA1cJiwVpEJ8UAAAAASUVORK5CYII="
Base64 = Annotated[str | bytes, WithJsonSchema({"type": "string", "contentEncoding": "base64"})]


class Post(BaseModel):
    """A post with any of text, image and rationales."""

    model_config = ConfigDict(extra="forbid", strict=True)
    text: str | None = Field(None, description="Text of the post.")
    image: Base64 | None = Field(None, description="Base64 of an image file, or a data URI. No path or URL is opened.")
    rationales: dict[str, str | None] | None = Field(None, description="Rationales by perspective.")


class Prediction(BaseModel):
    """Result of a post."""

    label: str
    score: float = Field(description="Probability of the label.")
    scores: dict[str, float] = Field(description="Probability of each label.")
    modality_weights: dict[str, float] | None = Field(description="Weights of text, image and rationales.")
    perspective_weights: dict[str, float] | None = Field(description="Weights of the rationales.")


class Refusal(BaseModel):
    """Reason of a refusal."""

    status: int
    field: str
    message: str


class Error(BaseModel):
    """Refusal of a request or of one of its posts."""

    error: Refusal


def check_post(values: Any) -> Post:
    """Return a post of a request.

    Raises:
        RequestError: 422 with the field.
    """
    try:
        return Post.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = [str(part) for part in first["loc"] if part not in ("str", "bytes")]
        if first["type"] == "extra_forbidden":
            raise RequestError(
                422, place[0][:80], f"Unknown field; a post has the fields {', '.join(Post.model_fields)}."
            ) from None
        if not place:
            raise RequestError(422, "post", 'A post must be an object such as {"text": "What a day"}.') from None
        raise RequestError(422, ".".join(place)[:80], f"{first['msg']}.") from None


def request_body(perspectives: Sequence[str]) -> dict[str, Any]:
    """Describe the body of a request for OpenAPI, with examples for these perspectives."""
    post = Post.model_json_schema()
    example = {
        "text": "What a day at the sea",
        "image": EXAMPLE_IMAGE,
        "rationales": {perspectives[0]: "The picture shows a warm colour."},
    }
    parts = {"text": {"type": "string"}, "image": {"type": "string", "contentMediaType": "application/octet-stream"}}
    parts |= {f"rationale_{name}": {"type": "string"} for name in perspectives}
    return {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"anyOf": [post, {"type": "array", "items": post, "minItems": 1}]},
                "examples": {
                    "post": {"summary": "One post", "value": example},
                    "posts": {"summary": "Several posts", "value": [example, {"text": "Nothing but rain"}]},
                },
            },
            "multipart/form-data": {"schema": {"type": "object", "properties": parts}},
        },
    }
