"""Words of reports and comparison pages: a part of docs/glossary.md."""

from __future__ import annotations

TERMS = {
    "AUC": "area under the ROC curve: the share of pairs of a desirable and an undesirable completion in which the "
    "desirable one ranks higher; a tie counts one half",
    "baseline": "the recipe that the others of a comparison are compared with",
    "best of N": "the reply with the highest score of N that a policy draws; of its KL an upper bound is known, "
    "log N - (N - 1) / N",
    "chosen, rejected": "the two completions of a pair; the paper's y_w and y_l",
    "held-out accuracy": "the share of held-out pairs whose chosen completion ranks higher, by implicit rewards unless "
    "stated otherwise; a tie counts one half, so before training it is 0.5 where the reference is the start",
    "held-out rows": "rows that no step trains on",
    "implicit reward": "beta times the log-ratio, unless the objective defines another one",
    "KL": "Kullback-Leibler divergence of the policy from the reference, summed over a reply's tokens, in nats",
    "likelihood accuracy": "the share of held-out pairs whose chosen completion has the higher log-prob",
    "log-prob": "the natural logarithm of a token's or completion's probability",
    "log-ratio": "log-prob under the policy minus log-prob under the reference",
    "margin": "the implicit reward of the chosen completion minus that of the rejected one; its unit depends on the "
    "objective and on beta, so margins of different objectives are not comparable",
    "policy": "the model that is trained",
    "reference": "the model that the policy is compared with; by default the policy's start",
    "row": "a prompt with its completions, as read from the data",
    "s.e.": "standard error, over held-out prompts",
    "sampled KL": "the mean log-ratio of sampled replies: an estimate of the KL, with a larger error than the sum of "
    "each token's exact KL",
}
"""Term -> meaning, by letter. docs/glossary.md has the same sentences."""
