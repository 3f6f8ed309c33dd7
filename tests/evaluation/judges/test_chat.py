"""A chat judge asks in both orders, asks once, gives up in a sentence, and never shows its key."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from evaluation.judges.server import KEY, Answer
from pydantic import ValidationError

from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.core.paths import cache_root
from alignzoo.core.signals import GracefulShutdown, Interrupted
from alignzoo.evaluation.judges import endpoint
from alignzoo.evaluation.judges.chat import AGAIN, QUESTION, Chat, verdict_in
from alignzoo.evaluation.judges.verdict_cache import Verdicts, verdict_key
from alignzoo.evaluation.judging import judge_key, run_judge
from alignzoo.registry.lookup import registry

PROMPTS = ["What is a fjord?", "What is a fjord?", "Hello"]
FIRST = ["An arm of the sea.", "Dunno.", "Hi!"]
SECOND = ["No idea.", "A long inlet of the sea.", "Hi!"]


def shown(asked) -> tuple[str, str]:
    """The two replies in the order that the question shows them in."""
    found = re.search(r"\[Reply A\]\n(.*?)\n\n\[Reply B\]\n(.*?)\n\n\[End", asked.question, re.DOTALL)
    return found[1], found[2]


def by_length(asked, before: int) -> Answer:
    """Prefers the longer reply, wherever it stands."""
    a, b = map(len, shown(asked))
    return Answer("A" if a > b else "B" if b > a else "tie")


def chat(**fields) -> Chat:
    return Chat(**{"model": "judge-1", "backoff": 0.001, "timeout": 10} | fields)


def files() -> list[str]:
    return [path.read_text() for path in sorted((cache_root() / "verdicts").rglob("*")) if path.is_file()]


# --- verdicts


def test_the_better_reply_wins_wherever_it_stands(serve):
    server = serve()
    assert chat().prefers(PROMPTS, FIRST, SECOND) == [1.0, 0.0, 0.5]
    assert sorted(map(shown, server.asked)) == sorted(
        [
            (FIRST[0], SECOND[0]),
            (SECOND[0], FIRST[0]),
            (FIRST[1], SECOND[1]),
            (SECOND[1], FIRST[1]),
        ]
    )  # fmt: skip  (equal replies are a tie, and nobody is asked)


def test_the_protocol_is_openais(serve):
    server = serve()
    chat().prefers(["Hi"], ["a"], ["bb"])
    asked = server.asked[0]
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.headers["Content-Type"] == "application/json"
    assert asked.body == {
        "model": "judge-1", "temperature": 0.0, "max_tokens": 256, "messages": [{"role": "user", "content": asked.question}]
    }  # fmt: skip
    assert "[Conversation]\nHi\n" in asked.question


def test_what_is_null_is_not_sent(serve):
    server = serve()
    chat(temperature=None, max_tokens=None, key_env=None).prefers(["Hi"], ["a"], ["bb"])
    assert server.asked[0].body.keys() == {"model", "messages"}
    assert "Authorization" not in server.asked[0].headers


def test_a_liking_for_the_first_place_is_a_tie(serve):
    serve(lambda asked, before: Answer("A"))
    assert chat().prefers(PROMPTS[:2], FIRST[:2], SECOND[:2]) == [0.5, 0.5]


def test_a_tie_in_one_order_is_half_a_verdict(serve):
    serve(lambda asked, before: Answer("tie" if shown(asked)[0] == SECOND[0] else "A"))
    assert chat().prefers(PROMPTS[:1], FIRST[:1], SECOND[:1]) == [0.75]


def test_a_chat_is_shown_with_its_speakers_and_braces_in_replies_stay(serve):
    server = serve()
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say {second}"}]
    chat().prefers([messages], ["{prompt}"], ["{second}{first}"])
    assert "[Conversation]\nSystem: Be brief.\n\nUser: Say {second}\n" in server.asked[0].question
    assert sorted(map(shown, server.asked)) == [("{prompt}", "{second}{first}"), ("{second}{first}", "{prompt}")]


def test_it_has_no_scores_and_a_run_reports_its_win_rates(serve):
    serve()
    lines = [{"before": b, "after": a, "chosen": "An inlet"} for a, b in zip(FIRST, SECOND, strict=True)]
    figures = run_judge(chat(), PROMPTS, lines, Screen(quiet=True))
    assert figures["win_rate_over_start"] == pytest.approx(0.5)
    assert figures["win_rate_over_chosen"] == pytest.approx(1 / 3)
    assert figures["win_rate_over_chosen_n"] == 3
    assert "reward" not in figures
    with pytest.raises(NotImplementedError, match="Chat has no scores"):
        chat().scores(PROMPTS, FIRST)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("A", "A"), (" b\n", "B"), ("tie", "tie"), ("**A**", "A"), ("Tie.", "tie"), ("Answer: B", "B"), ("Reply A", "A"),
        ("Comparison: the second is a ramble.\nMore helpful: A", "A"), ("[[B]]", "B"), ("Reply B is more helpful.", "B"),
        ('"A"', "A"), ("My verdict is [[A]]. Not [[B]]? No: [[C]]", "tie"), ("It's a tie", "tie"), ("(B)", "B"),
        ("A is better\n\n", "A"), ("", None), ("A or B?", None), ("C", None), ("Both are good.", None), ("A\nbecause", None),
        ("I can't judge this.", None), ("AB", None), ("A good reply", None),
    ],
)  # fmt: skip
def test_a_verdict_is_read_or_not_but_never_guessed(answer, verdict):
    assert verdict_in(answer) == verdict


def test_garbage_is_asked_once_more_and_is_then_no_verdict(serve):
    server = serve(lambda asked, before: Answer("Both have merit."))
    got = chat().prefers(PROMPTS[:1], FIRST[:1], SECOND[:1])
    assert math.isnan(got[0])
    assert len(server.asked) == 4
    again = [asked.body["messages"][1:] for asked in server.asked if len(asked.body["messages"]) > 1]
    assert again == [[{"role": "assistant", "content": "Both have merit."}, {"role": "user", "content": AGAIN}]] * 2
    assert files() == []


def test_garbage_and_then_a_verdict_is_a_verdict(serve):
    serve(lambda asked, before: by_length(asked, before) if len(asked.body["messages"]) > 1 else Answer("Hm."))
    assert chat().prefers(PROMPTS[:2], FIRST[:2], SECOND[:2]) == [1.0, 0.0]


def test_half_a_pair_without_a_verdict_is_none(serve):
    """The other order alone would count the liking for a place in full."""
    serve(lambda asked, before: Answer(None if shown(asked)[0] == FIRST[0] else "A"))
    assert math.isnan(chat().prefers(PROMPTS[:1], FIRST[:1], SECOND[:1])[0])


# --- the cache


def test_a_second_run_asks_nothing_not_even_for_a_key(serve, monkeypatch):
    server = serve()
    first = chat().prefers(PROMPTS, FIRST, SECOND)
    asked = len(server.asked)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert chat(parallel=1, retries=0).prefers(PROMPTS, FIRST, SECOND) == first
    assert chat().prefers(PROMPTS, SECOND, FIRST) == [0.0, 1.0, 0.5]
    assert len(server.asked) == asked == len(files())


def test_another_address_is_asked_for_its_own_verdicts(serve):
    """The same name may be another model there."""
    serve()
    first, key = chat().prefers(PROMPTS, FIRST, SECOND), judge_key(chat(), registry())
    server = serve(lambda asked, before: Answer("tie"))
    assert chat().prefers(PROMPTS, FIRST, SECOND) == [0.5, 0.5, 0.5] != first
    assert server.asked
    assert judge_key(chat(), registry()) != key  # of the verdicts of a comparison
    assert "127.0.0.1" not in str(chat().fingerprint())  # but it is the same run


def test_how_the_endpoint_is_asked_is_no_part_of_the_judge(serve, monkeypatch):
    """Only what a verdict depends on is."""
    serve()
    monkeypatch.setenv("OTHER_KEY", "k")
    how = {"parallel": 3, "timeout": 9.0, "retries": 0, "backoff": 2.0, "key_env": "OTHER_KEY"}
    assert judge_key(chat(**how), registry()) == judge_key(chat(), registry())
    assert set(chat().fingerprint()) == {"name", "model", "question", "temperature", "max_tokens"}
    for verdict in ({"max_tokens": 9}, {"temperature": None}, {"model": "other"}):
        assert judge_key(chat(**verdict), registry()) != judge_key(chat(), registry())


@pytest.mark.parametrize(
    "other",
    [{"model": "judge-2"}, {"question": QUESTION + " Now."}, {"temperature": 0.5}, {"prompt": "?"}, {"reply": "c"}],
)
def test_whatever_a_verdict_depends_on_is_asked_again(serve, other):
    server = serve()
    chat().prefers(["Hi"], ["a"], ["bb"])
    prompt, reply = other.pop("prompt", "Hi"), other.pop("reply", "a")
    chat(**other).prefers([prompt], [reply], ["bb"])
    assert len(server.asked) == 4


def test_the_same_question_is_asked_once_in_a_run(serve):
    server = serve()
    chat().prefers(["Hi"] * 5, ["a"] * 5, ["bb"] * 5)
    assert len(server.asked) == 2


def test_a_damaged_verdict_is_asked_again(serve):
    server = serve()
    chat().prefers(["Hi"], ["a"], ["bb"])
    for path in (cache_root() / "verdicts").rglob("*.json"):
        path.write_text('{"verdict": "A')
    assert chat().prefers(["Hi"], ["a"], ["bb"]) == [0.0]
    assert len(server.asked) == 4
    assert {json.loads(text)["verdict"] for text in files()} == {"A", "B"}


def test_many_may_write_one_verdict_at_a_time(tmp_path):
    cache, key = Verdicts(tmp_path), verdict_key("x", 0.0, None)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: (cache.put(key, "tie", "m"), cache.get(key)), range(40)))
    assert cache.get(key) == "tie"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{key}.json"]


def test_what_was_answered_before_a_failure_is_kept(serve):
    server = serve(lambda asked, before: Answer("A") if before < 3 else Answer(status=400))
    with pytest.raises(UserError):
        chat(parallel=1).prefers(PROMPTS[:2], FIRST[:2], SECOND[:2])
    assert len(files()) == 3
    server.behavior = by_length
    chat().prefers(PROMPTS[:2], FIRST[:2], SECOND[:2])
    assert len(server.asked) == 5


# --- patience


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_asked_again(serve, status):
    server = serve(lambda asked, before: Answer(status=status) if before < 2 else Answer("A"))
    assert chat(parallel=1).prefers(PROMPTS[:1], FIRST[:1], SECOND[:1]) == [0.5]
    assert len(server.asked) == 4


def test_retry_after_is_honoured(serve):
    times = []

    def limited(asked, before):
        times.append(time.perf_counter())
        return Answer(status=429, headers={"Retry-After": "0.3"}) if before == 0 else Answer("A")

    serve(limited)
    chat(parallel=1).prefers(PROMPTS[:1], FIRST[:1], SECOND[:1])
    assert times[1] - times[0] >= 0.3


def test_an_endpoint_that_asks_to_wait_for_an_hour_does_not_answer(serve):
    server = serve(lambda asked, before: Answer(status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(
        ConnectionError, match=r"the judge at http://127.* answered 429 Too Many Requests \(1 attempt\)"
    ):
        chat(parallel=1).prefers(PROMPTS[:1], FIRST[:1], SECOND[:1])
    assert len(server.asked) == 1


def test_an_endpoint_that_stays_broken_is_given_up_in_a_sentence(serve):
    server = serve(lambda asked, before: Answer(status=500, body="Traceback ..."))
    want = rf"^the judge at {server.url[:-3]} answered 500 Internal Server Error \(3 attempts\)$"
    with pytest.raises(ConnectionError, match=want):
        chat(parallel=1, retries=2).prefers(PROMPTS[:1], FIRST[:1], SECOND[:1])
    assert len(server.asked) == 3


def test_a_slow_endpoint_is_given_up(serve):
    awake = threading.Event()
    serve(lambda asked, before: Answer("A") if awake.wait(60) else Answer("B"))
    with pytest.raises(ConnectionError, match=r"did not answer within 0\.1 s \(2 attempts\)"):
        chat(parallel=1, timeout=0.1, retries=1).prefers(PROMPTS[:1], FIRST[:1], SECOND[:1])
    awake.set()


def test_sigterm_ends_a_judge_that_never_answers(serve):
    awake = threading.Event()

    def silent(asked, before):
        os.kill(os.getpid(), signal.SIGTERM)
        awake.wait(60)
        return Answer("A")

    serve(silent)
    began = time.perf_counter()
    with pytest.raises(Interrupted), GracefulShutdown():
        chat(timeout=60, parallel=1).prefers(PROMPTS[:1], FIRST[:1], SECOND[:1])
    assert time.perf_counter() - began < 10
    awake.set()


def test_an_answer_without_end_is_cut_off(serve, monkeypatch):
    monkeypatch.setattr(endpoint, "LONGEST_ANSWER", 1000)
    serve(lambda asked, before: Answer(body="x" * 1001))
    with pytest.raises(ConnectionError, match="sent more than 1,000 bytes"):
        chat().prefers(PROMPTS[:1], FIRST[:1], SECOND[:1])


def test_an_answer_in_drops_is_given_up(serve, monkeypatch):
    """Each drop is data, so that `timeout` alone would wait for years."""
    monkeypatch.setattr(endpoint, "PATIENCE", 0.01)
    serve(lambda asked, before: Answer("A", drops=1_000_000))
    with pytest.raises(ConnectionError, match=r"did not end its answer within 0\.3 s \(2 attempts\)"):
        chat(parallel=1, timeout=30, retries=1).prefers(PROMPTS[:1], FIRST[:1], SECOND[:1])


@pytest.mark.parametrize(
    "date", ["1 Jan 99999999999999 00:00:00", "Mon, 01 Jan 2020 00:00:00 +99999", "nan", "-1", "soon", "Mon,"]
)
def test_a_pause_that_is_no_time_is_none(date):
    assert endpoint._seconds(date) == 0


def test_a_judge_works_where_an_event_loop_runs_already(serve):
    """In a notebook."""
    serve()

    async def cell() -> list[float]:
        return chat().prefers(PROMPTS, FIRST, SECOND)

    assert asyncio.run(cell()) == [1.0, 0.0, 0.5]


def test_an_endpoint_that_breaks_off_is_asked_again(serve):
    server = serve(lambda asked, before: Answer("A", status=200 if before else 0))
    assert chat(parallel=1).prefers(PROMPTS[:1], FIRST[:1], SECOND[:1]) == [0.5]
    assert len(server.asked) == 3


def test_an_endpoint_that_is_not_there_is_reported_at_once(serve, monkeypatch):
    serve()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    with pytest.raises(
        ConnectionError,
        match=f"^the judge at http://127.0.0.1:{port} cannot be reached: .*(refused|Connect call failed)",
    ):
        chat(backoff=60).prefers(PROMPTS, FIRST, SECOND)


def test_one_failure_ends_the_pauses_of_the_others(serve):
    """One question gets an error at once; the others would wait for a minute before they ask again."""
    serve(lambda asked, before: Answer(status=400) if shown(asked)[0] == "bad" else Answer(status=503))
    began = time.perf_counter()
    with pytest.raises(UserError, match="rejected the request: 400"):
        chat(backoff=60).prefers(["Hi"] * 4, ["bad", "b", "c", "d"], ["e"] * 4)
    assert time.perf_counter() - began < 50


def test_questions_are_asked_side_by_side(serve):
    together = threading.Barrier(4)  # answers come only when four have been asked

    def slow(asked, before):
        together.wait(60)
        return Answer("A")

    serve(slow)
    assert chat(parallel=4).prefers(PROMPTS[:2], FIRST[:2], SECOND[:2]) == [0.5, 0.5]


# --- mistakes, and the key


def test_a_refusal_says_what_the_server_says_and_where_to_look(serve):
    server = serve(lambda asked, before: Answer(status=404, body='{"error": {"message": "no model judge-1"}}'))
    with pytest.raises(UserError, match="rejected the request: 404 Not Found no model judge-1") as error:
        chat(parallel=1).prefers(PROMPTS[:1], FIRST[:1], SECOND[:1])
    assert "set OPENAI_BASE_URL to the address before /chat/completions" in str(error.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "body", ["<html>hello</html>", "[]", '{"choices": []}', '{"choices": [{"message": {"content": 3}}]}']
)
def test_what_is_no_chat_completion_is_reported(serve, body):
    serve(lambda asked, before: Answer(body=body))
    with pytest.raises(ConnectionError, match="sent no chat completion: "):
        chat(parallel=1).prefers(PROMPTS[:1], FIRST[:1], SECOND[:1])


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "OPENAI_API_KEY"])
def test_a_missing_variable_is_named(serve, monkeypatch, name):
    serve()
    monkeypatch.delenv(name)
    with pytest.raises(UserError, match=f"the environment variable {name} is not set; expected "):
        chat().ready()
    with pytest.raises(UserError, match=name):
        chat().prefers(PROMPTS, FIRST, SECOND)
    monkeypatch.setenv("MY_OWN", "http://127.0.0.1:1/v1")
    chat(**{"base_url_env": "MY_OWN"} if "URL" in name else {"key_env": "MY_OWN"}).ready()


@pytest.mark.parametrize(
    "address",
    [
        KEY,
        "file:///etc/passwd",
        "http://",
        "http://h/a b",
        "http://h\x7f/v1",
        f"http://user:{KEY}@host/v1",
        "http://h:x/v1",
    ],
)
def test_an_address_that_is_none_is_reported_without_it(serve, monkeypatch, address):
    serve()
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(UserError, match="OPENAI_BASE_URL is not an address") as error:
        chat().ready()
    assert address not in str(error.value)
    assert KEY not in str(error.value)


def test_a_key_that_can_not_be_one_is_reported_without_it(serve, monkeypatch):
    serve()
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nsecond line")
    with pytest.raises(UserError, match="OPENAI_API_KEY has characters that a key cannot have") as error:
        chat().ready()
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=401, body=json.dumps({"error": {"message": f"bad key {KEY}"}})),
        Answer(status=500, body=KEY),
        Answer(body=f"you sent {KEY}"),
        Answer(status=307, headers={"Location": "http://127.0.0.1:1/elsewhere"}),
    ],
    ids=["refused", "broken", "no protocol", "redirect"],
)
def test_the_key_is_in_no_error_even_if_the_server_sends_it_back(serve, answer, capfd):
    serve(lambda asked, before: answer)
    with pytest.raises((UserError, ConnectionError)) as error:
        chat(parallel=1, retries=1).prefers(PROMPTS[:1], FIRST[:1], SECOND[:1])
    chain, links = error.value, []
    while chain is not None:
        links.append(f"{chain!r} {chain}")
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    assert KEY not in "".join(links) + "".join(capfd.readouterr())


def test_the_key_is_in_no_file_and_no_representation(serve):
    serve(lambda asked, before: Answer(f"You sent {KEY}.\nA"))
    judge = chat()
    judge.prefers(PROMPTS, FIRST, SECOND)
    assert len(files()) == 4
    assert KEY not in "".join(files()) + repr(judge) + judge.model_dump_json() + repr(judge._endpoint())


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_not_followed_with_the_key(serve, status):
    elsewhere = serve()
    to = {"Location": f"{elsewhere.url}/chat/completions"}
    server = serve(lambda asked, before: Answer(status=status, headers=to))
    with pytest.raises(UserError, match=f"rejected the request: {status}"):
        chat(parallel=1).prefers(PROMPTS[:1], FIRST[:1], SECOND[:1])
    assert (len(server.asked), elsewhere.asked) == (1, [])


@pytest.mark.parametrize(
    "fields",
    [{"question": "{first} or what?"}, {"key_env": KEY}, {"retries": -1}, {"timeout": 0}, {"model": ""}, {"key": KEY}],
)
def test_fields_that_mean_nothing_are_rejected(fields):
    with pytest.raises(ValidationError):
        chat(**fields)
