"""Names of components in packages that may not be installed, for hints in error messages."""

from __future__ import annotations

ZOO = """
alpha_dpo alpha_po aot aot_unpaired apo_down apo_zero apo_zero_unpaired attribute_regression bco bco_pair bema_dpo
beta_dpo bfpo bpo bradley_terry bradley_terry_absolute bradley_terry_list bradley_terry_margin bradley_terry_scaled
bradley_terry_ties cal_dpo chi_po confpo cpo d2po dil discopop dpo_d dpo_rk dpo_shift dpop dr_dpo exo_pair f_dpo
focal_bradley_terry focal_po gpo grm infonca kto ld_dpo lipo_lambda ln_dpo mallows_po mappo minor_dpo modpo nca
nca_pair odpo orpo pl_dpo plackett_luce preferred_ft pro process_reward qrpo r_dpo rainbow_po rebel repo
reward_classifier reward_rpo robust_dpo rpo rrhf rso_hinge safe_dpo sampo score_regression simper simpo slic_hf sppo
sppo_hard tdpo1 tdpo2 tgdpo tis_dpo todo tpo tpo_l tr_dpo unlikelihood wpo
""".split()

UNLEARN = "grad_ascent npo simnpo undial wga satimp ceu idk_dpo retain_nll retain_kl".split()
DISTILL = "distillm2 forward_kl gkd reverse_kl skew_forward_kl skew_reverse_kl".split()
ONLINE = "cispo dapo dr_grpo grpo gspo nash_md ppo reinforce reinforce_pp remax rloo xpo".split()

PACKAGE_OF: dict[str, dict[str, str]] = {
    "objective": {"hinge": "alignzoo-example"}
    | dict.fromkeys(ZOO, "alignzoo-zoo")
    | dict.fromkeys(UNLEARN, "alignzoo-unlearn")
    | dict.fromkeys(DISTILL, "alignzoo-distill")
    | dict.fromkeys(ONLINE, "alignzoo-online"),
    "modifier": dict.fromkeys(
        ("length_downsampling", "f_divergence", "wpo_weighting", "length_desensitization", "humanline"), "alignzoo-zoo"
    ),
    "data source": {"shp": "alignzoo-shp"},
    "format": {"imdb": "alignzoo-imdb"},
    "model source": {"soup": "alignzoo-soup"},
    "metric": dict.fromkeys(("flipped", "displaced", "reward_length_gap", "ches"), "alignzoo-diagnostics"),
    "judge": {"flesch": "alignzoo-readability"},
    "reporter": {"card": "alignzoo-card"},
    "executor": {"slurm": "alignzoo-slurm"},
}
"""kind -> name -> pip package."""
