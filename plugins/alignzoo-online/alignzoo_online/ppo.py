"""PPO with a critic, as RLHF uses it: KL penalty in the reward, GAE, clipped policy and value losses."""

from pydantic import model_validator
from torch import Tensor

from alignzoo import Field, Group, Objective
from alignzoo import actor_critic as ac
from alignzoo import policy_gradient as pg
from alignzoo_online.clipped import Clip, ratio

SMALLEST_DEVIATION = 1e-8


class PPO(Objective):
    """PPO: a critic, generalized advantages of rewards with a KL penalty at each token, clipped policy and value.

    The reward of token t is -beta log(pi_old / pi_ref). That of the last token has the completion's reward added, first
    normalized and then clipped where the recipe says so. A is the GAE of these, whitened over the rollout. The critic's
    target is G = A + V_old, with A before whitening. No value is added after the last token of a draw that was cut.
    `rollout.epochs`, `rollout.prompts` and `train.batch_size` set passes and minibatches. The critic has an optimizer
    of its own (the section `critic`), so that its loss needs no coefficient.

    When: reward minus KL is to be maximized as in the DPO paper's baseline, with an advantage for each token.

    Not when: rewards are of whole completions and several draws of a prompt are cheap: `rloo` needs no second model.
    """

    name = "ppo"
    family = "policy gradients"
    source = (
        "Schulman et al. 2017, arXiv:1707.06347, equations 7 and 9; KL penalty and coefficient: Ziegler et al. 2019, "
        "arXiv:1909.08593, section 2.2; GAE: arXiv:1506.02438, equation 16; dual clip: Ye et al. 2019, "
        "arXiv:1912.09729, equation 5; normalization and clip of rewards: Zheng et al. 2023, arXiv:2307.04964; value "
        "clip and whitening: Huang et al. 2024, arXiv:2403.17031"
    )
    equation = (
        "mean_t -min(rho A, clip(rho, 1 +- clip) A) + max((V - G)^2, (clip(V, V_old +- value_clip) - G)^2) / 2, "
        "A = GAE(-beta k1_t, + r at the end), G = A + V_old, A then whitened"
    )
    data = "group"
    tokens = True
    reference = "token"
    head = "value"
    advantage_reads_log_probs = True
    min_completions = 1

    beta: float = Field(0.05, ge=0, description="strength of the KL penalty in the reward; at the start if it adapts")
    target_kl: float | None = Field(
        None,
        gt=0,
        description="KL of a completion in nats that beta adapts to after each rollout; null: beta is fixed",
    )
    horizon: float = Field(10_000, gt=0, description="draws over which beta adapts; 0.2 is its largest relative step")
    gamma: float = Field(1.0, gt=0, le=1, description="discount of a token")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="decay of GAE; 1: returns minus values")
    clip: float = Clip
    value_clip: float | None = Field(
        0.2, gt=0, description="largest distance of a value from V_old that is learnt from; null: none"
    )
    dual_clip: float | None = Field(
        None, gt=1, description="largest loss of a token with a negative advantage, in units of -A; null: none"
    )
    whiten: bool = Field(
        True, description="subtract the mean of the rollout's advantages, and divide by their deviation"
    )
    normalize_reward: bool = Field(
        False, description="subtract the mean of all rewards so far, and divide by their deviation"
    )
    reward_clip: float | None = Field(None, gt=0, description="limit of the reward's absolute value; null: none")
    reduction: pg.Reduction = Field(
        "batch_tokens", description="mean over the tokens of the batch, or another reduction of policy and value loss"
    )

    @model_validator(mode="after")
    def _adapts_from_somewhere(self) -> "PPO":
        if self.target_kl is not None and self.beta == 0:
            raise ValueError("target_kl multiplies beta, which stays 0 for ever; expected a beta above 0 to start from")
        return self

    def initial_state(self) -> dict[str, float]:
        """Return the KL coefficient, and the moments of no rewards."""
        return {"beta": self.beta, "count": 0.0, "mean": 0.0, "squares": 0.0}

    def advantage(self, group: Group) -> Tensor:
        """Return the advantage of each token, (N,), 0 for draws that are left out."""
        advantage, kept = self._gae(group), group.kept_tokens
        return ac.whiten(advantage, kept) if self.whiten else advantage.masked_fill(~kept, 0)

    def returns(self, group: Group) -> Tensor:
        """Return the advantage before whitening plus the old value, (N,)."""
        return self._gae(group) + group.completions.tokens.old_value

    def next_state(self, group: Group) -> dict[str, float]:
        """Return the coefficient and the moments after a rollout."""
        beta, tokens = group.state["beta"], group.completions.tokens
        draws = int(group.kept.sum())
        if self.target_kl is not None and draws:
            kl = float(group.sum(tokens.sum(tokens.old_log_prob - tokens.ref_log_prob)).sum()) / draws
            beta = ac.adapted_coefficient(beta, kl, self.target_kl, draws, self.horizon)
        return {"beta": beta} | self._moments(group)

    def loss(self, group: Group) -> Tensor:
        """Return the policy's loss plus the critic's, shape (B,)."""
        tokens, advantage = group.completions.tokens, group.token_advantage
        surrogate = pg.clipped(ratio(group), advantage, self.clip, self.clip)
        if self.dual_clip is not None:
            surrogate = ac.dual_clip(surrogate, advantage, self.dual_clip)
        error = ac.clipped_value_loss(tokens.value, tokens.old_value, group.returns, self.value_clip)
        return pg.reduce_tokens(group, surrogate + error, self.reduction)

    def weight(self, group: Group) -> Tensor:
        """Return the weight of the reduction, shape (B,)."""
        return pg.reduction_weight(group, self.reduction)

    def _gae(self, group: Group) -> Tensor:
        tokens, reward = group.completions.tokens, group.reward
        if self.normalize_reward:
            after = self._moments(group)
            deviation = (after["squares"] / max(after["count"] - 1, 1)) ** 0.5
            reward = (reward - after["mean"]) / (deviation + SMALLEST_DEVIATION)
        if self.reward_clip is not None:
            reward = reward.clamp(-self.reward_clip, self.reward_clip)
        penalty = group.state["beta"] * pg.k1(tokens.old_log_prob - tokens.ref_log_prob)
        return ac.gae(
            tokens, ac.at_last_token(tokens, reward) - penalty, tokens.old_value, self.gamma, self.gae_lambda
        )  # fmt: skip

    def _moments(self, group: Group) -> dict[str, float]:
        """Return count, mean and summed squares of all rewards so far, this rollout's included (Chan et al. 1979)."""
        count, mean, squares = (group.state[key] for key in ("count", "mean", "squares"))
        own, added = group.reward[group.kept].double(), int(group.kept.sum())
        if added:
            apart, total = float(own.mean()) - mean, count + added
            squares += float((own - own.mean()).square().sum()) + apart**2 * count * added / total
            count, mean = total, mean + apart * added / total
        return {"count": float(count), "mean": mean, "squares": squares}
