"""What mkdocs runs while it builds the site: pages of objectives, formulas, links to the rest of the repository."""
