"""The report: drawn from a run folder alone, finished or not, safe to open."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from markupsafe import escape
from rich.console import Console

from alignzoo.cli.app import alignzoo as cli
from alignzoo.report.glossary import TERMS
from alignzoo.report.run_page import write_report
from alignzoo.report.summary import summary_table

SCRIPT = "<script>alert('x')</script><img src=http://example.com/x onerror=alert(1)>"
SUMMARY = {
    "name": "dpo_hh", "fingerprint": "ab" * 16, "finished": True, "objective": {"name": "dpo", "beta": 0.1},
    "model": {"start": "the run of sft_hh", "parameters": 770944, "weights": "cd" * 16, "trained_weights": "ef" * 16},
    "data": {"source": {"name": "hh", "path": "toy"}, "read": 5400, "used": 5398, "train": 4798, "held_out": 600, "skipped": 2,
             "skipped_by_reason": {"empty completion": 2}, "overlap": {"rows": 4, "prompts": 7}, "duplicates": {"train": {"rows": 2, "prompts": 3}, "held_out": {"rows": 0, "prompts": 0}},
             "deduplicated": 0, "truncated_prompts": 0, "truncated_completions": 1, "flipped": 480},
    "eval": {"n": 600, "loss": 0.2, "preference_accuracy": 0.92, "preference_accuracy_se": 0.011, "likelihood_accuracy": 0.8,
             "margin": 4.2, "preference_accuracy_before": 0.5, "likelihood_accuracy_before": 0.62},
    "train": {"steps": 300, "pairs": 4800, "seconds": 40.0, "pairs_per_second": 120.0, "tokens_per_second": 16000.0, "final_loss": 0.3},
    "reference": {"rows_scored": 0, "rows_cached": 5400}, "layout": {"used": "padded", "reason": "agrees"},
    "peak_memory_bytes": 700 * 2**20, "versions": {"alignzoo": "0.1.0", "torch": "2.13.0"},
    "plugins": [{"package": "alignzoo", "version": "0.1.0", "code": {"dpo": "12" * 16}}],
}  # fmt: skip


def lines(steps: int) -> list[dict]:
    found = [{"kind": "eval", "step": s, "n": 600, "loss": 0.6, "preference_accuracy": 0.5 + s / steps / 3, "preference_accuracy_se": 0.01,
              "likelihood_accuracy": 0.6, "margin": 0.1, "chosen_reward": 0.1, "rejected_reward": 0.0} for s in (0, steps)]  # fmt: skip
    for step in range(1, steps + 1):
        found.append({"kind": "train", "step": step, "loss": math.exp(-step / steps), "accuracy": 0.7, "margin": step / steps,
                      "chosen_reward": 0.1, "rejected_reward": -step / steps, "chosen_log_ratio": 1.0, "rejected_log_ratio": -1.0,
                      "chosen_log_prob": -40.0, "rejected_log_prob": -50.0, "grad_norm": 3.0, "learning_rate": 1e-3})  # fmt: skip
    return found


@pytest.fixture
def folder(tmp_path):
    def make(steps=300, summary=SUMMARY, samples=True):
        (tmp_path / "recipe.yaml").write_text("name: dpo_hh\n")
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines(steps)))
        if summary:
            (tmp_path / "summary.json").write_text(json.dumps(summary))
            data = SUMMARY["data"] | {
                "held_out_is": "the source's own test split", "skipped_rows": [{"id": SCRIPT, "reason": "empty completion", "detail": ""}],
                "lengths": {"prompt": {"mean": 40.5, "median": 38.0, "p95": 90.0, "max": 120}},
            }  # fmt: skip
            (tmp_path / "data.json").write_text(json.dumps(data))
        if samples:
            sample = {"id": "1", "prompt": f"\n\nHuman: hello {SCRIPT}\n\nAssistant: hi\n\nHuman: more?\n\nAssistant:",
                      "before": "", "after": f" after {SCRIPT}", "chosen": "good", "rejected": "bad"}  # fmt: skip
            (tmp_path / "samples.jsonl").write_text(json.dumps(sample) + "\n")
        return tmp_path

    return make


def page(folder) -> str:
    return write_report(folder).read_text()


def test_it_shows_the_figures_and_the_curves(folder):
    html = page(folder())
    for words in (
        "0.500 →",
        "0.920",
        "± 0.011",
        "preference accuracy",
        "gradient norm",
        "learning rate",
        "log-ratio",
        "rows/s",
    ):
        assert words in html
    assert html.count("<svg") == 8
    assert "2 empty completion" in html


def test_the_diagnosis_has_numbers_advice_and_rows_as_text(folder):
    where = folder()
    rows = [{"id": SCRIPT, "margin": -9.0}, *({"id": str(i), "margin": 4 + i / 100} for i in range(40))]
    (where / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    html = page(where)
    assert "<h2>Diagnosis</h2>" in html
    assert re.search(r"labels that are likely wrong: <span class=\"verdict\">found</span>", html)
    assert "rows with a margin below the limit: 1 of 41" in html
    assert "arXiv:1911.00068" in html
    assert f"<code>{escape(SCRIPT)}</code>: margin -9" in html
    assert re.search(r"leakage: <span class=\"verdict\">found</span>", html)
    assert "trained on and held out: 4, and 7 rows with a prompt that is trained on" in html
    assert "arXiv:2410.08847" not in html  # of a sign that was not found, numbers alone


def test_the_command_prints_the_diagnosis_and_the_path(folder):
    where = folder()
    done = CliRunner().invoke(cli, ["report", str(where)])
    assert (done.exit_code, done.stdout) == (0, f"{where / 'report.html'}\n")
    said = " ".join(done.stderr.split())
    assert "leakage: found (rows trained on and held out 4, and 7 rows with a prompt that is trained on)" in said
    assert "arXiv:2107.06499" in said
    assert "rows that dominate the gradient: not known (needs the gradient weights of 100 held-out rows" in said


@pytest.mark.slow
def test_nothing_is_asked_of_any_network_and_no_sample_runs(folder):
    html = page(folder())
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html
    assert not re.search(r"""(src|href|action)\s*=\s*["'](?!#)""", html)
    assert not re.search(r"@import|url\((?!#)", html)
    assert "default-src 'none'" in html


@pytest.mark.slow
def test_the_document_is_well_formed_and_its_ids_are_unique(folder):
    ids, open_tags = [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            ids.extend(value for name, value in attributes if name == "id")
            if tag not in ("meta", "link", "br", "hr", "img", "input"):
                open_tags.append(tag)

        def handle_startendtag(self, tag, attributes):
            ids.extend(value for name, value in attributes if name == "id")

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    html = page(folder())
    Reader().feed(html)
    assert open_tags == []
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:xlink:)?href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


@pytest.mark.slow
def test_the_same_files_give_the_same_bytes(folder):
    assert page(folder()) == page(folder())


def test_a_run_that_has_not_finished_says_so(folder):
    html = page(folder(steps=12, summary=None, samples=False))
    assert "This run has not finished: 12 steps are recorded" in html
    assert "<svg" in html


def test_an_empty_folder_is_no_error(tmp_path):
    assert "has not finished" in page(tmp_path)


@pytest.mark.slow
def test_a_long_run_stays_a_small_page(folder):
    assert len(page(folder(steps=10_000))) < 2_000_000


def test_numbers_that_are_none_leave_a_gap_and_no_error(folder):
    where = folder(steps=3)
    with open(where / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "step": 4, "loss": NaN, "grad_norm": null}\n{"kind": "tr')
    assert "<svg" in page(where)


def test_the_table_in_the_terminal_has_the_figures():
    console = Console(width=120, record=True, file=open("/dev/null", "w"))
    console.print(summary_table(SUMMARY))
    text = console.export_text()
    for words in (
        "dpo(beta=0.1)",
        "0.500 before training, 0.920 after ± 0.011",
        "0.620 before training, 0.800 after",
        "5,400 from the cache",
        "700 MiB",
        "480 training labels were flipped",
    ):
        assert words in text


def test_the_words_fit_labels_and_are_those_of_the_glossary(folder):
    where = folder(summary=SUMMARY | {"accuracy_of": {"rows": "labels", "by": "implicit reward"}})
    html = page(where)
    assert "held-out AUC" in html
    assert "600 labeled completions" in html
    assert "area under the ROC curve</h3>" in html
    assert "undesirable" in html
    known = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text().splitlines()
    for term, meaning in TERMS.items():
        assert f"| {term} | {meaning} |" in known, term
        assert f"<dt>{term}</dt>" in html


def test_an_unfinished_run_has_the_headline_of_its_evaluations(folder):
    html = page(folder(steps=12, summary=None, samples=False))
    assert re.search(r'<span class="from">0.500 → </span>0.833 <small>± 0.010', html)
