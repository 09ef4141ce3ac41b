"""The web application: one page, and the same answers as JSON."""

import errno
import threading
from pathlib import Path
from typing import Any, Dict, List, Sequence

from fairseq_entmax.analysis.looks import Look, look
from fairseq_entmax.analysis.opened import Opened
from fairseq_entmax.analysis.page.html import page
from fairseq_entmax.analysis.segmentation import joined

from .questions import MOST_CHARACTERS, MOST_TOKENS, SLIDERS, Question, read_question

HOST = "127.0.0.1"
_SCRIPT = (Path(__file__).parent / "explore.js").read_text(encoding="utf-8")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Busy(Exception):
    """Another question is being answered for too long."""


class Explorer:
    """Answers questions with one or two models, one at a time.

    Args:
        opened: the models, beside each other on the page.
        max_expansions: what exact search may continue for a tree; it bounds the time of an answer.
        patience: seconds that a question waits for the one before it.
        examples: lines that the page offers.
    """

    def __init__(
        self,
        opened: Sequence[Opened],
        max_expansions: int = 2000,
        patience: float = 60.0,
        examples: Sequence[str] = (),
    ) -> None:
        self.opened, self.max_expansions, self.patience = opened, max_expansions, patience
        self.examples = examples
        self.lock = threading.Lock()  # models and matplotlib are not made for threads

    def answers(self, question: Question) -> List[Look]:
        """What each model says.

        Raises:
            ValueError: an empty line, or one of too many tokens.
        """
        found = []
        for opened in self.opened:
            line = opened.line(question.text)
            if len(line.symbols) > MOST_TOKENS:
                raise ValueError(
                    f"the line has {len(line.symbols)} tokens, {MOST_TOKENS} are allowed"
                )
            found.append(look(opened, line, question.options))
        return found

    def page(self, question: Question, looks: Sequence[Look] = (), error: str = "") -> str:
        """The page with its answers, if there are any."""
        return page(
            "explore.html",
            title=" and ".join(opened.name for opened in self.opened),
            names=[opened.name for opened in self.opened],
            question=question,
            sliders=SLIDERS,
            examples=self.examples,
            most=MOST_CHARACTERS,
            looks=looks,
            error=error,
        )

    def waiting(self, work: Any) -> Any:
        """Does the work when it is its turn.

        Raises:
            Busy: its turn does not come.
        """
        if not self.lock.acquire(timeout=self.patience):
            raise Busy(f"another question has been at work for {self.patience:g} s: ask again")
        try:
            return work()
        finally:
            self.lock.release()


def make_app(explorer: Explorer, port: int) -> Any:
    """The Flask application; it answers to this machine's own names only.

    Raises:
        ValueError: there is no Flask.
    """
    try:
        import flask
    except ImportError:
        raise ValueError(
            "the explorer is served with Flask: pip install 'fairseq_entmax[explore]'"
        ) from None
    app = flask.Flask(__name__, static_folder=None)
    hosts = {f"{name}:{port}" for name in (HOST, "localhost")}

    @app.before_request
    def own_host_only() -> Any:
        # a foreign page that has its name point to this machine is not to read the answers
        if flask.request.host not in hosts:
            return flask.Response(
                f"this page is at http://{HOST}:{port}/\n", 403, mimetype="text/plain"
            )
        return None

    @app.after_request
    def protect(response: Any) -> Any:
        response.headers.update(_HEADERS)
        return response

    @app.get("/")
    def show() -> Any:
        def drawn(question: Question) -> str:
            looks = explorer.answers(question) if question.text else []
            return explorer.page(question, looks)

        question, status, found = _asked(explorer, flask.request.args, drawn)
        return (found if status == 200 else explorer.page(question, error=found)), status

    @app.get("/api/translate")
    def translate() -> Any:
        def numbers(question: Question) -> List[Dict[str, Any]]:
            return [each.numbers for each in explorer.answers(question)]

        _, status, found = _asked(explorer, flask.request.args, numbers)
        return flask.jsonify({"answers": found} if status == 200 else {"error": found}), status

    @app.get("/explore.js")
    def script() -> Any:
        return flask.Response(_SCRIPT, mimetype="text/javascript")

    return app


def make_server(explorer: Explorer, port: int) -> Any:
    """A server that listens on this machine's own address.

    Raises:
        ValueError: there is no Flask, or another program has the port.
    """
    app = make_app(explorer, port)
    from werkzeug.serving import make_server as listen  # comes with Flask

    try:
        return listen(HOST, port, app, threaded=True)
    except (OSError, SystemExit) as error:  # werkzeug exits where the port is taken
        taken = isinstance(error, SystemExit) or error.errno == errno.EADDRINUSE
        reason = "another program has it" if taken else error
        raise ValueError(f"cannot listen on port {port}: {reason}; choose another --port") from None


def _asked(explorer: Explorer, query: Any, work: Any) -> Any:
    """(question, status, what came of it or what was wrong)."""
    question = read_question({}, explorer.max_expansions)
    try:
        question = question._replace(text=query.get("q", "")[:MOST_CHARACTERS])
        question = read_question(query, explorer.max_expansions)
        return question, 200, explorer.waiting(lambda: work(question))
    except ValueError as error:
        return question, 400, str(error)
    except Busy as error:
        return question, 503, str(error)


def examples_of(opened: Opened, subset: str, most: int = 5) -> List[str]:
    """Lines of a subset as one would type them; none where there is no such subset."""
    try:
        lines = opened.subset(subset)[:most]
    except ValueError:
        return []
    typed = [(joined(line.symbols), line.symbols) for line in lines]
    return [text if opened.segment(text) == cut else " ".join(cut) for text, cut in typed]
