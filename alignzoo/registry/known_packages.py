"""Names of components in packages that may not be installed, for hints in error messages."""

from __future__ import annotations

ZOO = """
alpha_dpo alpha_po aot aot_unpaired apo_down apo_zero apo_zero_unpaired bco bco_pair beta_dpo bradley_terry
bradley_terry_margin cal_dpo chi_po cpo discopop dpo_shift dpop dr_dpo exo_pair f_dpo infonca kto ld_dpo lipo_lambda
ln_dpo nca nca_pair odpo orpo pl_dpo preferred_ft pro r_dpo robust_dpo rpo rrhf rso_hinge sampo simpo slic_hf
sppo_hard tdpo1 tdpo2 tr_dpo unlikelihood wpo
""".split()

ONLINE = "cispo dapo dr_grpo grpo gspo reinforce reinforce_pp remax rloo".split()

PACKAGE_OF: dict[str, dict[str, str]] = {
    "objective": {"hinge": "alignzoo-example"}
    | dict.fromkeys(ZOO, "alignzoo-zoo")
    | dict.fromkeys(ONLINE, "alignzoo-online"),
    "modifier": dict.fromkeys(
        ("length_downsampling", "f_divergence", "wpo_weighting", "length_desensitization"), "alignzoo-zoo"
    ),
    "data source": {"shp": "alignzoo-shp"},
    "format": {"imdb": "alignzoo-imdb"},
    "model source": {"soup": "alignzoo-soup"},
    "metric": dict.fromkeys(("flipped", "displaced", "reward_length_gap"), "alignzoo-diagnostics"),
    "judge": {"flesch": "alignzoo-readability"},
    "reporter": {"card": "alignzoo-card"},
}
"""kind -> name -> pip package."""
