"""Model card: the policy of a run on two pages and its facts on one, from the report's own document."""

import hashlib
from collections.abc import Mapping
from typing import Any

from ope import page, report
from ope.evidence import Evidence, canonical

CARD, TEXT, FACTS = "model_card.html", "model_card.md", "facts.html"


def render(document: Mapping[str, Any]) -> dict[str, str]:
    """The files of the card, as page and as text, and of the facts label: name -> content."""
    content = report.context(Evidence(document)) | {"digest": hashlib.sha256(canonical(document)).hexdigest()}
    return {
        CARD: page.render("model_card.html.j2", content),
        TEXT: page.plain("model_card.md.j2", content),
        FACTS: page.render("facts.html.j2", content),
    }
