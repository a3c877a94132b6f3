"""Page that classifies a post, for the command `demo` and for a Space of the Hub."""

import contextlib
import html
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from transformers import pipeline

try:
    from processing_mpt.handler import image_content
except ImportError:  # in a Space, which has the model in this folder
    from model.handler import image_content

MAX_TEXT_LENGTH = 20_000
MAX_FILE_SIZE = "16mb"
# Fonts of the system: the default theme requests fonts of another server.
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def create_page(
    pipe: Any,
    write_rationales: Callable[[str | None, bytes | None], Awaitable[dict[str, str]]] | None = None,
    explain: Callable[[dict[str, Any]], str] | None = None,
) -> gr.Blocks:
    """Create the page of a model.

    Args:
        pipe ([`MPTPipeline`]): model and processor.
        write_rationales (*optional*): returns rationales by perspective of a text and the content of an image. With
            it, the page has a button that fills in the rationales.
        explain (*optional*): returns an HTML page about the prediction for a post. With it, there is a button for it.
    """
    perspectives = pipe.processor.perspectives
    reads = pipe.model.config.modalities

    def post_of(image: str | None, text: str | None, *rationales: str | None) -> dict[str, Any]:
        texts = dict(zip(perspectives, rationales, strict=True))
        return {"text": text, "image": content_of(image), "rationales": texts if any(texts.values()) else None}

    def classify(*parts: str | None) -> tuple[Any, ...]:
        with shown_errors():
            result = pipe(post_of(*parts))
        modalities, weights = result["modality_weights"], result["perspective_weights"]
        return (
            result["scores"],
            gr.Label(value=modalities, visible=modalities is not None),
            gr.Label(value=weights, visible=weights is not None),
        )

    def explanation(*parts: str | None) -> Any:
        with shown_errors():
            document = html.escape(explain(post_of(*parts)))
        frame = f'<iframe title="Explanation" sandbox srcdoc="{document}" style="width:100%;height:40rem;border:0">'
        return gr.HTML(value=f"{frame}</iframe>", visible=True)

    async def write(image: str | None, text: str | None) -> list[str]:
        with shown_errors():
            written = await write_rationales(text, content_of(image))
        return [written[name] for name in perspectives]

    with gr.Blocks(title="Sentiment of a post", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown("# Sentiment of a post\nAn image, a text, or both.")
        with gr.Row():
            with gr.Column(min_width=300):
                image = gr.Image(
                    label="Image", type="filepath", sources=["upload", "clipboard"], height=280,
                    visible="image" in reads,
                )  # fmt: skip
                image.preprocess = uploaded_file
                text = gr.Textbox(label="Text", lines=3, max_length=MAX_TEXT_LENGTH, visible="text" in reads)
                with gr.Accordion("Rationales (optional)", open=False, visible="rationales" in reads):
                    boxes = [
                        gr.Textbox(label=name, lines=2, max_length=MAX_TEXT_LENGTH, elem_id=f"rationale-{index}")
                        for index, name in enumerate(perspectives)
                    ]
                    if write_rationales is not None:
                        writing = gr.Button("Write them", size="sm")
                        writing.click(write, [image, text], boxes, api_name=False)
                button = gr.Button("Classify", variant="primary")
                explaining = gr.Button("Explain", visible=explain is not None)
            with gr.Column(min_width=300):
                scores = gr.Label(label="Label and probabilities", elem_id="scores")
                modality_weights = gr.Label(
                    label="Weights of the modalities", show_heading=False, elem_id="modalities"
                )
                perspective_weights = gr.Label(
                    label="Weights of the rationales", show_heading=False, visible=False, elem_id="perspectives"
                )
                gr.Markdown("Weights show what the network mixed. They do not explain a prediction.")
        document = gr.HTML(visible=False)
        parts, results = [image, text, *boxes], [scores, modality_weights, perspective_weights]
        # Both use the model, one at a time.
        button.click(classify, parts, results, api_name="classify", concurrency_id="model")
        if explain is not None:
            explaining.click(explanation, parts, document, api_name=False, concurrency_id="model")
    return page


@contextlib.contextmanager
def shown_errors() -> Iterator[None]:
    """Show the message of a ValueError on the page, which would take it for HTML."""
    try:
        yield
    except ValueError as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from None


def uploaded_file(upload: Any) -> str | None:
    """Return the path of an uploaded file.

    gr.Image would open it, and show no reason where it is no image.
    """
    return None if upload is None else upload.path


def content_of(path: str | None) -> bytes | None:
    """Read an uploaded file.

    Raises:
        ValueError: too many pixels, or a format for which Pillow would start another program.
    """
    return None if path is None else image_content(Path(path).read_bytes())


if __name__ == "__main__":  # in a Space
    model = Path(__file__).with_name("model")
    loaded = pipeline("multimodal-sentiment", model=str(model), trust_remote_code=True)
    create_page(loaded).launch(theme=THEME, max_file_size=MAX_FILE_SIZE, show_error=False)
