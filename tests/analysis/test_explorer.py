"""The explorer: its answers, what it refuses, and, in headless Chromium, its page."""

import threading
from urllib.parse import quote

import pytest

pytest.importorskip("matplotlib", reason="needs the extra [explore]")
pytest.importorskip("jinja2", reason="needs the extra [explore]")
pytest.importorskip("flask", reason="needs the extra [explore]")

from fairseq_entmax.__main__ import main
from fairseq_entmax.analysis.explorer.app import Explorer, examples_of, make_app, make_server
from fairseq_entmax.analysis.explorer.questions import SLIDERS, read_question
from fairseq_entmax.analysis.opened import Opened
from tests.cli.conftest import data, shared, trained  # noqa: F401  the same fixtures

from .browser import Browser, chromium

PORT = 8766
NOUN = "Haus"
SCRIPT = "<script>alert(1)</script>"
needs_chromium = pytest.mark.skipif(not chromium(), reason="needs chromium")


@pytest.fixture(scope="module")
def opened(data, trained):  # noqa: F811
    return Opened(str(data), str(trained("lstm") / "checkpoint_last.pt"), cpu=True)


@pytest.fixture(scope="module")
def explorer(opened):
    return Explorer([opened, opened], 200, examples=examples_of(opened, "test"))


@pytest.fixture(scope="module")
def client(explorer):
    return make_app(explorer, PORT).test_client()


def ask(client, path="/", host=f"127.0.0.1:{PORT}", **query):
    return client.get(path, query_string=query, headers={"Host": host})


def test_the_page_and_the_json_have_the_same_answers(client, opened):
    found = ask(client, "/api/translate", q=NOUN, beam=4, nbest=3).get_json()["answers"]
    assert len(found) == 2 and found[0]["source"] == list(NOUN)
    assert 1 <= len(found[0]["candidates"]) <= 3
    best = opened.beam(opened.line(NOUN), 4)[0]
    assert found[0]["candidates"][0]["tokens"] == " ".join(opened.written(best["tokens"]))
    assert {"alignment", "tree", "steps", "certificate"} <= set(found[0])
    page = ask(client, q=NOUN, beam=4, nbest=3).get_data(as_text=True)
    assert page.count('role="img"') == 2 * 3
    assert all(each["text"] in page for each in found[0]["candidates"])


def test_without_a_line_there_is_something_to_try(client):
    page = ask(client).get_data(as_text=True)
    assert "Hand" in page and page.count("<li>") == 5 and 'role="img"' not in page


def test_input_is_text_wherever_it_stands(client):
    answer = ask(client, q=SCRIPT)
    page = answer.get_data(as_text=True)
    assert answer.status_code == 200 and "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    quoted = ask(client, q='"><b>x').get_data(as_text=True)
    assert "<b>x" not in quoted


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"q": " "}, "the input is empty"),
        ({"q": "x" * 1001}, "the line has 1001 characters, 1000 are allowed"),
        ({"q": "a " * 150}, "the line has 150 tokens, 100 are allowed"),
        ({"q": NOUN, "beam": "0"}, "beam must be a number from 1 to 20"),
        ({"q": NOUN, "beam": "2.5"}, "beam must be a number from 1 to 20"),
        ({"q": NOUN, "nbest": "x"}, "nbest must be a number from 1 to 20"),
        ({"q": NOUN, "mass": "nan"}, "mass must be a number from 0.5 to 1"),
    ],
)
def test_what_cannot_be_answered_is_said(client, query, message):
    for path in ("/", "/api/translate"):
        answer = ask(client, path, **query)
        assert answer.status_code == 400 and message in answer.get_data(as_text=True)


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1:1", ""])
def test_other_hosts_are_refused(client, host):
    for path in ("/", "/api/translate", "/explore.js"):
        assert ask(client, path, host=host, q=NOUN).status_code == 403


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}"])
def test_own_hosts_are_served(client, host):
    answer = ask(client, host=host)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_a_long_question_does_not_block_the_page_for_good(opened):
    explorer = Explorer([opened], patience=0.05)
    client = make_app(explorer, PORT).test_client()
    with explorer.lock:
        answer = ask(client, q=NOUN)
    assert answer.status_code == 503 and "ask again" in answer.get_data(as_text=True)
    assert ask(client, q=NOUN).status_code == 200


def test_a_failure_frees_the_next(opened, monkeypatch):
    explorer = Explorer([opened], patience=0.05)
    client = make_app(explorer, PORT).test_client()
    with monkeypatch.context() as patched:
        patched.setattr(Explorer, "answers", lambda *_: 1 / 0)
        assert ask(client, q=NOUN).status_code == 500
    assert ask(client, q=NOUN).status_code == 200


def test_a_question_is_read_as_it_was_written():
    query = {"q": NOUN, "beam": "7", "nbest": "2", "mass": "0.9"}
    question = read_question(query, 100)
    assert question.text == NOUN and dict(question.values) == {"beam": 7, "nbest": 2, "mass": 0.9}
    assert question.options.max_expansions == 100
    assert {slider.name for slider in SLIDERS} == set(question.values)


@pytest.fixture(scope="module")
def address(explorer):
    server = make_server(explorer, PORT)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{PORT}/"
    server.shutdown()
    thread.join()


def test_only_this_machine_is_served(address, opened, capsys, data, trained):  # noqa: F811
    with pytest.raises(ValueError, match=f"cannot listen on port {PORT}: another program has it"):
        make_server(Explorer([opened]), PORT)
    path = str(trained("lstm") / "checkpoint_last.pt")
    with pytest.raises(SystemExit):
        main(["explore", str(data), "--path", path, "--cpu", "--port", "0"])
    assert "--port must be from 1 to 65535" in capsys.readouterr().err


@pytest.fixture
def browser(address, tmp_path):
    one = Browser(tmp_path / "profile")
    yield one
    one.close()


WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@needs_chromium
def test_keys_alone_lead_to_pictures(browser, address):
    browser.size(1280)
    browser.open(address)
    assert browser.run("document.activeElement.id") == "q"
    browser.type(NOUN)
    browser.press("Tab")
    browser.press("ArrowRight")
    assert browser.run("document.querySelector('output[for=beam]').textContent") == "6"
    for _ in range(3):
        browser.press("Tab")
    assert browser.run("document.activeElement.tagName") == "BUTTON"
    browser.wait_for_load(lambda: browser.press("Enter"))
    assert "q=Haus&beam=6" in browser.run("location.search")
    assert browser.run("document.querySelectorAll('svg').length") == 6
    assert browser.run("document.querySelector('svg').getBoundingClientRect().width") > 100
    assert browser.run(WIDER) == 0 and browser.errors == []


@needs_chromium
def test_a_narrow_page_does_not_overflow(browser, address):
    browser.size(360)
    browser.open(f"{address}?q={NOUN}")
    assert browser.run("innerWidth") == 360 and browser.run(WIDER) == 0
    assert browser.run("document.querySelectorAll('section').length") == 2


@needs_chromium
def test_a_script_in_the_line_does_not_run(browser, address):
    browser.open(address + "?q=" + quote("<img src=x onerror=document.title='hit'> " + SCRIPT))
    assert browser.run("document.getElementById('q').value").endswith(SCRIPT)
    assert browser.run("document.title") != "hit"
    assert browser.run("document.querySelectorAll('img, main script').length") == 0
