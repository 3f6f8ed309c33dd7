"""What a person looks at after a run: a table in the terminal and a page."""
def write_report(folder): return folder/"report.html"
def summary_table(summary): return str(summary)
