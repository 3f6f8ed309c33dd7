"""Plain policy gradients on whole completions, which differ in the baseline."""

from torch import Tensor

from alignzoo import Field, Group, Objective


class _Plain(Objective):
    """The negative log-prob of each draw times its advantage, a mean over the draws of a prompt."""

    family = "policy gradients"
    data = "group"

    def loss(self, group: Group) -> Tensor:
        """Return the loss, shape (B,)."""
        return group.mean(-group.advantage * group.completions.log_prob)


class REINFORCE(_Plain):
    """REINFORCE, with a running mean of the rewards as baseline.

    When: one draw of each prompt is all there is.

    Not when: prompts differ in how hard they are: `rloo` has a baseline of each.
    """

    name = "reinforce"
    source = "Williams 1992, Machine Learning 8, equation 11"
    equation = "-(R - b) log pi(y), with b the running mean of the rewards of earlier rollouts"
    reference = "none"
    min_completions = 1

    decay: float = Field(0.9, ge=0, lt=1, description="share of the running mean that a rollout keeps")

    def initial_state(self) -> dict[str, float]:
        """Return no rewards."""
        return {"sum": 0.0, "weight": 0.0}

    def advantage(self, group: Group) -> Tensor:
        """Return rewards minus the mean of earlier rollouts, (B, G); before the first that is 0."""
        return group.reward - group.state["sum"] / (group.state["weight"] or 1.0)

    def next_state(self, group: Group) -> dict[str, float]:
        """Return the decayed sum of mean rewards, and of ones, which corrects for the start at 0."""
        if not group.kept.any():
            return dict(group.state)
        mean = float(group.sum(group.reward).sum() / group.count.sum())
        own = 1 - self.decay
        return {
            "sum": self.decay * group.state["sum"] + own * mean,
            "weight": self.decay * group.state["weight"] + own,
        }


class RLOO(_Plain):
    """RLOO: REINFORCE with the mean of a prompt's other draws as baseline, and the KL divergence in the reward.

    When: reward minus KL is to be maximized, with an exact gradient and nothing to tune but beta.

    Not when: many updates are made of one rollout: it has no ratio.
    """

    name = "rloo"
    source = "Ahmadian et al. 2024, arXiv:2402.14740 (RLOO)"
    equation = "-A log pi(y), A_i = R_i - mean_{j != i} R_j, R = r - beta log(pi(y) / pi_ref(y))"
    reference = "sequence"
    advantage_reads_log_probs = True

    beta: float = Field(0.03, ge=0, description="strength of the KL penalty; the paper uses 0.03 (TL;DR) and 0.10 (HH)")

    def advantage(self, group: Group) -> Tensor:
        """Return each penalized reward minus the mean of the prompt's others, (B, G)."""
        return group.leave_one_out(group.reward - self.beta * group.completions.log_ratio)


class ReMax(_Plain):
    """ReMax: REINFORCE with the reward of the likeliest completion as baseline, and the KL divergence in the reward.

    When: a second draw of each prompt costs more than one greedy completion.

    Not when: several draws of each prompt are made anyway: `rloo`.
    """

    name = "remax"
    source = "Li et al. 2023, arXiv:2310.10505, algorithm 1"
    equation = "-(R - r(y_greedy)) log pi(y), R = r - beta log(pi(y) / pi_ref(y))"
    reference = "sequence"
    advantage_reads_log_probs = True
    greedy_baseline = True
    min_completions = 1

    beta: float = Field(0.05, ge=0, description="strength of the KL penalty")

    def advantage(self, group: Group) -> Tensor:
        """Return each penalized reward minus the reward of the greedy completion, (B, G)."""
        return group.reward - self.beta * group.completions.log_ratio - group.greedy_reward[:, None]
