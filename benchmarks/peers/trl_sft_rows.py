"""Token ids and masks of TRL's SFTTrainer: `python trl_sft_rows.py ASKED.json FOUND.json`.

The ids and labels are those that its collator gives the model; a label of -100 is not trained on.
"""

import json
import sys
import tempfile
from pathlib import Path

from datasets import Dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer


def first_row(records: list, folder: str) -> dict:
    """Ids and mask of the first record, or the first line of the error."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8,
                                         num_hidden_layers=1, num_attention_heads=1))  # fmt: skip
    chat = "messages" in records[0] or "conversations" in records[0]
    with tempfile.TemporaryDirectory() as output:
        settings = SFTConfig(output_dir=output, report_to=[], bf16=False, max_length=None, assistant_only_loss=chat,
                             use_cpu=True, gradient_checkpointing=False, per_device_train_batch_size=1,
                             max_steps=1)  # fmt: skip
        try:
            rows = Dataset.from_list(records).to_iterable_dataset()
            trainer = SFTTrainer(model=model, args=settings, train_dataset=rows, processing_class=tokenizer)
            batch = trainer.data_collator([next(iter(trainer.train_dataset))])
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            return {"error": f"{type(error).__name__}: {lines[0] if lines else ''}"}
    return {"ids": batch["input_ids"][0].tolist(), "mask": [int(one != -100) for one in batch["labels"][0].tolist()]}


asked = json.loads(Path(sys.argv[1]).read_text())
found = {name: first_row(records, asked["tokenizer"]) for name, records in asked["shapes"].items()}
Path(sys.argv[2]).write_text(json.dumps({"shapes": found}))
