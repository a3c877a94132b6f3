"""Page of a report: complete in itself, escaped, readable."""

from html.parser import HTMLParser

from mpt_sentiment.reporting.page import marked

VOID = {"meta", "img", "input", "br", "rect", "link"}


class Page(HTMLParser):
    """Elements of a page, and whether every one is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_page_needs_nothing_from_elsewhere(written):
    text = (written.output_dir / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    sources = [attrs["src"] for _, attrs in page.elements if "src" in attrs]
    assert sources and all(source.startswith("data:image/") for source in sources)
    links = [attrs["href"] for _, attrs in page.elements if "href" in attrs]
    assert links and all(link.startswith("#") for link in links)
    assert "url(" not in text and "@import" not in text
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len({*ids}) and {link[1:] for link in links} <= {*ids}


def test_the_page_has_all_sections_figures_and_commands(written):
    text = (written.output_dir / "index.html").read_text(encoding="utf-8")
    images = Page(text).elements
    alts = {attrs.get("alt") for tag, attrs in images if tag == "img"}
    for name, section in written.sections.items():
        assert f'<section id="{name}">' in text
        assert {figure.caption for figure in section.figures} <= alts
    assert "These posts are synthetic" in text and "mpt.report(posts, &#39;maps&#39;" in text
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text
    assert text.count("<article") == 2 * 3  # posts whose attributions, and whose attention, are in the page
    assert "That is no attribution" in " ".join(text.split()) or "it is no attribution" in text


def test_texts_are_escaped():
    assert marked("a <b> `x<y` **strong**") == "a &lt;b&gt; <code>x&lt;y</code> <strong>strong</strong>"
