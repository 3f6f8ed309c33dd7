"""Stanford Human Preferences (SHP) as a data source."""

from alignzoo import Completion, Field, FileSource, Row, Skipped, UserError, hookimpl

FIELDS = {"history": str, "human_ref_A": str, "human_ref_B": str, "labels": int, "score_A": int, "score_B": int}


class SHP(FileSource):
    """Stanford Human Preferences: Reddit posts with two answers, ranked by votes.

    Source: Ethayarajh et al. 2022, arXiv:2110.08420; JSON lines as in the dataset stanfordnlp/SHP. As in the DPO
    authors' code, prompts are formatted and pairs with close votes are omitted.
    """

    name = "shp"

    path: str | tuple[str, ...] = Field(description="a file, a folder, a pattern or a list of these")
    min_score_ratio: float = Field(2.0, ge=1, description="smallest ratio of the votes of both answers")

    def row(self, id, record, where):
        """Return the row of one post with two answers; `labels` is 1 if A is preferred."""
        for name, kind in FIELDS.items():
            if name not in record:
                raise UserError(f"no field '{name}'", where=where, expected=", ".join(FIELDS))
            if not isinstance(record[name], kind):
                wanted = "text" if kind is str else "a whole number"
                raise UserError(f"{name} is {record[name]!r}", where=where, expected=wanted)
        if record["labels"] not in (0, 1):
            raise UserError(f"labels is {record['labels']}", where=where, expected="1 (A is preferred) or 0 (B is)")
        low, high = sorted((record["score_A"], record["score_B"]))
        if high < self.min_score_ratio * low:
            return Skipped(id, "votes too close")
        answers = [f" {record['human_ref_A']}", f" {record['human_ref_B']}"]
        chosen, rejected = answers if record["labels"] == 1 else answers[::-1]
        if not chosen.strip() or not rejected.strip():
            return Skipped(id, "empty completion")
        if chosen == rejected:
            return Skipped(id, "chosen equals rejected")
        prompt = f"\n\nHuman: {record['history']}\n\nAssistant:"
        return Row(id, prompt, (Completion(chosen), Completion(rejected)), group=" ".join(record["history"].split()))


@hookimpl
def register_data_sources():
    return [SHP]
